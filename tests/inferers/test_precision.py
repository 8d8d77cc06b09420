from __future__ import annotations

import pytest
import torch

from volseg.inferers.precision import autocast_for, dtype_for, has_native_bf16

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("model name\t: bf16", False),
        ("", False),
    ],
    ids=["avx512", "amx", "arm", "no units", "not a flag", "empty"],
)
def test_native_bf16_is_read_from_the_processor_flags(tmp_path, line, expected):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{line}\n")
    assert has_native_bf16(cpuinfo) is expected


def test_a_system_without_processor_description_has_no_native_bf16(tmp_path):
    assert has_native_bf16(tmp_path / "missing") is False


@pytest.mark.parametrize(
    ("amp", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16), ("off", torch.float32)]
)
def test_a_linear_layer_runs_in_the_dtype_asked_for(amp, dtype):
    with autocast_for(amp, CPU):
        assert torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == dtype


def test_off_means_float32_even_inside_a_callers_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16), autocast_for("off", CPU):
        assert torch.nn.functional.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype == torch.float32


def test_auto_on_a_cpu_follows_its_units():
    assert dtype_for("auto", CPU) == (torch.bfloat16 if has_native_bf16() else None)


def test_an_unknown_amp_names_the_choices():
    with pytest.raises(ValueError, match="amp must be one of auto, bf16, fp16, off, got 'on'"):
        autocast_for("on", CPU)
