"""Training beside a teacher's features: what is compared, and that it changes gradients and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.features import STAGES, Student, make_student, teacher_features, unexplained
from experiments.teacher import Teacher, build_teacher
from vmkla.config import ModelConfig
from vmkla.models.checkpoints import save_weights
from vmkla.models.vmkla_unet import build_model

SMALL = ModelConfig("small", 8, (1, 1, 1, 1), (1, 1, 1, 1))


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    torch.manual_seed(0)
    return build_teacher(0, pretrained=False).eval().requires_grad_(False)


@pytest.fixture
def student(teacher: Teacher, tmp_path: Path) -> Student:
    torch.manual_seed(1)
    save_weights(build_model(SMALL), tmp_path / "small.safetensors", training={})
    return make_student(tmp_path / "small.safetensors", teacher, 0.5)


def test_a_linear_map_explains_all_and_noise_nothing() -> None:
    torch.manual_seed(2)
    student = torch.randn(4000, 10)
    assert unexplained(student, student @ torch.randn(10, 30) + 3) < 1e-3
    assert unexplained(student, torch.randn(4000, 30)) > 0.99
    half = torch.cat([student[:, :5], torch.randn(4000, 5)], 1)
    assert abs(float(unexplained(student, half)) - 0.5) < 0.02


def test_channels_of_the_teacher_count_alike() -> None:
    torch.manual_seed(3)
    student = torch.randn(4000, 10)
    teacher = torch.cat([1000 * student[:, :1], torch.randn(4000, 1)], 1)
    assert abs(float(unexplained(student, teacher)) - 0.5) < 0.02


def test_the_features_of_the_teacher_are_of_the_students_places(teacher: Teacher) -> None:
    pixels = torch.zeros(2, 3, 64, 96)
    found = teacher_features(teacher, pixels)
    encoded = build_model(SMALL).encoder(pixels)
    assert list(found) == list(STAGES)
    for stage in STAGES:
        assert len(found[stage]) == encoded[stage].flatten(0, 2).shape[0]
    left = torch.randn(1, 3, 64, 64)
    right = torch.cat([left, torch.randn(1, 3, 64, 64)])
    for stage in STAGES:  # rows go by image
        places = (64 // (4 << stage)) ** 2
        assert torch.allclose(
            teacher_features(teacher, right)[stage][:places],
            teacher_features(teacher, left)[stage],
            atol=1e-5,
        )


def test_the_gradient_is_that_of_the_sum_of_the_losses(student: Student, teacher: Teacher) -> None:
    pixels = torch.randn(2, 3, 64, 64)
    student.train()(pixels).square().mean().backward()
    found = {name: each.grad.clone() for name, each in student.named_parameters() if each.grad is not None}
    plain = build_model(SMALL)
    plain.load_state_dict(student.state_dict())
    outputs, deep = plain.encoder(pixels), teacher_features(teacher, pixels)
    gaps = [unexplained(outputs[stage].flatten(0, 2), deep[stage]) for stage in STAGES]
    logits = plain.head(plain.decoder(outputs))
    (logits.square().mean() + 0.5 * torch.stack(gaps).mean()).backward()
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(found[name], parameter.grad, atol=1e-6), name
    assert student.gap == pytest.approx(float(torch.stack(gaps).mean().detach()), rel=1e-4)


def test_outputs_and_weights_are_those_of_the_network(student: Student, tmp_path: Path) -> None:
    pixels = torch.randn(1, 3, 64, 64)
    plain = build_model(SMALL)
    plain.load_state_dict(student.state_dict())
    with torch.no_grad():
        expected = plain(pixels)
        assert torch.equal(student.train()(pixels), expected)
        student.beside = ()  # type: ignore[assignment]
        assert torch.equal(student.eval()(pixels), expected)
