"""Findings in the formats of annotation tools: COCO, CVAT for images 1.1, YOLO segmentation."""
