"""Wrong flags and folders: one line, exit code 2, and nothing compiled."""

import gc
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import pytest
from absl import flags

from kgmgt_jax import cli
from kgmgt_jax.commands import DEBUG, guarded
from kgmgt_jax.evaluation.symmetries import SYMMETRIES
from tests.scripts_environment import scripts_environment

ROOT = Path(__file__).resolve().parents[1]
STORED = "kgmgt_jax/pretrained/weights/config/metadata"  # in JSON


def _train(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "train.py", *map(str, arguments)],
        cwd=ROOT,
        env=scripts_environment(**environment),
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        (
            ["--config.model.widht=8"],
            "--config.model.widht=8: the configuration has no field 'widht'",
        ),
        (["--config=configs/kgmgt.py:large"], "variants are base, released and tiny, got 'large'"),
        (["--replay"], "expected a batch in not_finite/, got none"),
        (["--config=nothere.py"], "error: nothere.py: no such file"),
        (["--config=README.md"], "--config: expected a configuration in Python, got invalid"),
        ([f"--config={STORED}"], "expected a configuration in Python, got name 'true' is not"),
    ],
)
def test_wrong_flag_is_one_line(tmp_path, arguments, words):
    done = _train(f"--workdir={tmp_path}", *arguments)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and words in line


@pytest.mark.parametrize(
    ("named", "used"), [("cuda", "cuda,cpu"), ("cpu", "cpu"), ("tpu,cpu", "tpu,cpu"), (None, None)]
)
def test_the_cpu_is_there_for_masks_and_maps(named, used):
    before, seen = jax.config.jax_platforms, []
    try:
        jax.config.update("jax_platforms", named)
        guarded(lambda: seen.append(jax.config.jax_platforms))
    finally:
        jax.config.update("jax_platforms", before)
    assert seen == [used]


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("train", ("config", "workdir")),
        ("eval", ("checkpoint", "frames_at_once", "[no]circular", "dtype", "[no]pallas")),
        ("reconstruct", ("out", "frames_at_once", "[no]circular", "dtype", "[no]unroll")),
    ],
)
def test_help_lists_the_flags_that_scripts_share(script, names):
    done = subprocess.run(
        [sys.executable, f"{script}.py", "--help"],
        cwd=ROOT,
        env=scripts_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert [name for name in names if f"--{name}:" not in done.stdout] == []


def test_a_cine_has_as_many_copies_as_the_flag_allows(monkeypatch):
    values = flags.FlagValues()
    for define in ("DEFINE_integer", "DEFINE_boolean", "DEFINE_enum"):
        monkeypatch.setattr(flags, define, partial(getattr(flags, define), flag_values=values))
    loading = cli.define_loading()
    values(["eval.py", f"--self_ensemble={len(SYMMETRIES)}"])
    assert loading()["self_ensemble"] == len(SYMMETRIES)
    with pytest.raises(flags.IllegalFlagValueError, match=r"range \[1, 8\]"):
        values(["eval.py", f"--self_ensemble={len(SYMMETRIES) + 1}"])


def test_one_virtual_coil_is_refused_as_a_flag_whatever_is_read(monkeypatch):
    values = flags.FlagValues()
    for define in ("DEFINE_integer", "DEFINE_boolean", "DEFINE_enum"):
        monkeypatch.setattr(flags, define, partial(getattr(flags, define), flag_values=values))
    loading = cli.define_loading()
    for told, expected in (([], None), (["--virtual_coils=0"], 0), (["--virtual_coils=2"], 2)):
        values(["eval.py", *told])
        assert loading()["virtual_coils"] == expected
    with pytest.raises(flags.IllegalFlagValueError, match="virtual_coils=1: expected 2 or more"):
        values(["eval.py", "--virtual_coils=1"])


def test_folder_of_something_else_is_one_line_and_stays_as_it_is(tmp_path):
    (tmp_path / "scan.dcm").write_text("")
    done = _train(f"--workdir={tmp_path}", JAX_COMPILATION_CACHE_DIR="")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {tmp_path}: expected a new folder") and "scan.dcm" in line
    assert [path.name for path in tmp_path.iterdir()] == ["scan.dcm"]


@pytest.mark.parametrize(
    "message, line",
    [
        ("'\\'widht\\'\\nDid you mean \"width\" instead of \"widht\"?'", "'widht'; Did you mean"),
        ("'profil'", "--config.profil=1: the configuration has no field 'profil'"),
        ("flag --workdir=None: is required", "flag --workdir=None: is required"),
        ("Traceback\n  File x\nValueError: variants are a, b\n", "ValueError: variants are a, b"),
    ],
)
def test_message_about_a_flag_names_it(monkeypatch, message, line):
    monkeypatch.setattr(sys, "argv", ["train.py", "--config.model.widht=8", "--config.profil=1"])
    assert line in cli._about_flags(message)


@pytest.fixture
def no_cache():
    """No folder of compiled programs is set; the one before is afterwards."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("set_by_user", [True, False])
def test_compiled_programs_go_where_the_user_said_first(tmp_path, set_by_user):
    jax.config.update("jax_compilation_cache_dir", "/theirs" if set_by_user else None)
    cli._use_compilation_cache(lambda: tmp_path / "xla_cache")
    wanted = "/theirs" if set_by_user else str(tmp_path / "xla_cache")
    assert jax.config.jax_compilation_cache_dir == wanted


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("folder, wanted", [("", None), ("/theirs", "/theirs/kgmgt_jax/xla")])
def test_a_user_without_a_home_is_no_reason_to_end(monkeypatch, folder, wanted):
    def nobody():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setenv("XDG_CACHE_HOME", folder)
    cli._use_compilation_cache(None)
    assert jax.config.jax_compilation_cache_dir == wanted


class _Interrupted:
    """Gets Ctrl-C while it is destroyed."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def _interrupted_in_a_callback():
    def callback(phase, _):
        gc.callbacks.remove(callback)
        signal.raise_signal(signal.SIGINT)

    gc.callbacks.append(callback)
    gc.collect()


@pytest.mark.parametrize("cause", [_Interrupted, _interrupted_in_a_callback])
def test_interruption_that_python_cannot_raise_comes_again(cause, capsys):
    def work():
        cause()
        time.sleep(30)

    hook = sys.unraisablehook
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert guarded(work) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted" in capsys.readouterr().err and sys.unraisablehook is hook


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nor so"
            ),
            "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes",
        ),
        (MemoryError("Unable to allocate 9 bytes"), "Unable to allocate 9 bytes"),
        (MemoryError(), "out of memory"),
    ],
)
def test_too_little_memory_is_one_line_and_what_helps(error, line, capsys, monkeypatch):
    """Raised by hand: glibc takes memory from elsewhere in a process that asked for too much."""

    def work():
        raise error

    assert guarded(work, less_memory="take less") == 1
    assert capsys.readouterr().err == f"error: {line}; take less\n"
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(type(error)):
        guarded(work)


def test_other_errors_of_jax_keep_their_traceback():
    def work():
        raise jax.errors.JaxRuntimeError("INTERNAL: a fault")

    with pytest.raises(jax.errors.JaxRuntimeError, match="a fault"):
        guarded(work)


def test_other_errors_that_python_cannot_raise_are_told_as_ever(monkeypatch):
    class Broken:
        def __del__(self):
            raise ValueError("in vain")

    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: told.append(str(lost.exc_value)))
    assert guarded(lambda: Broken() and None) == 0 and told == ["in vain"]
