"""The path of one frame: preprocessing, the output of the network, findings, overlay. No torch, no video."""
