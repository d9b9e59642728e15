"""The build itself: what a failed one says, what is compiled again, and what the finished one knows about itself."""

import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from torch_dalign import _C

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the sources")


@pytest.fixture(scope="module")
def recipe():
    """setup.py as a module; it builds nothing when imported."""
    spec = importlib.util.spec_from_file_location("dalign_setup", ROOT / "setup.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tools(tmp_path):
    """A PATH of our own; tools("cc", "c++") puts these alone on it."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def put(*names):
        for name in names:
            (folder / name).symlink_to(shutil.which(name))
        return str(folder)

    return put


def last_line(tmp_path, path, modules=None, **variables):
    """Last line of a build that must fail. modules: {name: source} that shadow installed Python modules."""
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    for name, source in (modules or {}).items():
        (shadow / f"{name}.py").write_text(source)
    unwanted = ("CC", "CXX", "CUDA_HOME", "DALIGN_CUDA", "TORCH_CUDA_ARCH_LIST")
    environment = {name: value for name, value in os.environ.items() if name not in unwanted}
    environment |= {"PATH": path, "PYTHONPATH": str(shadow), **variables}
    command = [sys.executable, "setup.py", "-q", "build_ext", f"--build-lib={tmp_path}", f"--build-temp={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


class TestMissing:
    """One line, the last one: what is missing and how to get it."""

    def test_c_compiler(self, tmp_path, tools):
        line = last_line(tmp_path, tools("c++"))
        assert line.startswith("torch-dalign: no C compiler (tried cc, gcc, clang)")
        assert "apt install gcc" in line

    def test_c_compiler_of_the_environment(self, tmp_path, tools):
        line = last_line(tmp_path, tools("cc", "c++"), CC="no-such-compiler -m64")
        assert line.startswith("torch-dalign: no C compiler (tried no-such-compiler)")

    def test_cxx_compiler(self, tmp_path, tools):
        line = last_line(tmp_path, tools("cc"))
        assert line.startswith("torch-dalign: no C++ compiler (tried c++, g++, clang++)")
        assert "apt install g++" in line

    def test_torch(self, tmp_path, tools):
        line = last_line(tmp_path, tools("cc", "c++"), {"torch": "raise ModuleNotFoundError('No module named torch')"})
        assert line.startswith("torch-dalign: torch cannot be imported")
        assert "pip install 'torch>=2.10'" in line

    def test_old_torch(self, tmp_path, tools):
        line = last_line(tmp_path, tools("cc", "c++"), {"torch": "__version__ = '2.9.1+cpu'"})
        assert line.startswith("torch-dalign: torch 2.9.1+cpu is too old: pip install 'torch>=2.10'")

    def test_pybind11(self, tmp_path, tools):
        line = last_line(tmp_path, tools("cc", "c++"), {"pybind11": "raise ImportError"})
        assert line.startswith("torch-dalign: pybind11 is not installed")
        assert "pip install 'pybind11>=2.12'" in line

    def test_nvcc(self, tmp_path, tools):
        line = last_line(tmp_path, tools("cc", "c++"), DALIGN_CUDA="1", CUDA_HOME=str(tmp_path))
        assert line.startswith("torch-dalign: DALIGN_CUDA=1, but no nvcc: install the CUDA toolkit")

    def test_cuda_build_of_torch(self, tmp_path, tools):
        path = tools("cc", "c++")
        nvcc = tmp_path / "bin" / "nvcc"
        nvcc.write_text("#!/bin/sh\n")
        nvcc.chmod(0o755)
        fake = "__version__ = '2.13.0+cpu'\nclass version: cuda = None"
        line = last_line(tmp_path, path, {"torch": fake}, DALIGN_CUDA="1")
        assert line.startswith("torch-dalign: DALIGN_CUDA=1, but torch 2.13.0+cpu is built without CUDA")

    def test_unknown_wish(self, tmp_path, tools):
        line = last_line(tmp_path, tools("cc", "c++"), DALIGN_CUDA="yes")
        assert line.startswith("torch-dalign: DALIGN_CUDA=yes is not known: 0 (no CUDA)")

    def test_setuptools(self, recipe, monkeypatch):
        monkeypatch.setattr(recipe.setuptools, "__version__", "65.5.0")
        with pytest.raises(SystemExit, match=r"setuptools 65.5.0 is too old: pip install 'setuptools>=77'"):
            recipe.find_setuptools()

    def test_python_headers(self, recipe, monkeypatch, tmp_path):
        monkeypatch.setattr(recipe.sysconfig, "get_path", lambda name: str(tmp_path))
        with pytest.raises(SystemExit, match=r"no Python.h in .*: Debian and Ubuntu: apt install python3-dev"):
            recipe.find_python_headers()


class TestCompile:
    """An object is made again exactly when something it depends on has changed."""

    @pytest.fixture
    def job(self, recipe, tmp_path):
        (tmp_path / "answer.h").write_text("#define ANSWER 42\n")
        (tmp_path / "answer.c").write_text('#include "answer.h"\nint answer(void) { return ANSWER; }\n')
        return recipe.Job(recipe.find_compilers()[0], str(tmp_path / "answer.c"), tmp_path / "objects" / "answer.o")

    def compiles(self, recipe, job, salt=""):
        """Whether anything is done for the job; the object is there in any case."""
        before = job.target.stat().st_ino if job.target.exists() else None
        assert recipe.compile_object(job, salt) == str(job.target)
        return job.target.stat().st_ino != before

    def touch(self, path, object_):
        later = object_.stat().st_mtime_ns + 10**9
        os.utime(path, ns=(later, later))

    def test_once(self, recipe, job):
        assert self.compiles(recipe, job)
        assert not self.compiles(recipe, job)

    @pytest.mark.parametrize("name", ["answer.c", "answer.h"])
    def test_again_when_a_file_changes(self, recipe, job, tmp_path, name):
        self.compiles(recipe, job)
        self.touch(tmp_path / name, job.target)
        assert self.compiles(recipe, job)

    def test_again_when_a_header_is_gone(self, recipe, job, tmp_path):
        self.compiles(recipe, job)
        (tmp_path / "answer.h").unlink()
        with pytest.raises(SystemExit, match=r"torch-dalign: compiling .*answer.c failed"):
            self.compiles(recipe, job)

    def test_again_when_the_command_or_torch_changes(self, recipe, job):
        self.compiles(recipe, job, "2.13.0")
        assert self.compiles(recipe, job, "2.14.0")
        assert self.compiles(recipe, job._replace(command=[*job.command, "-O2"]), "2.14.0")

    def test_failure_leaves_no_object(self, recipe, job, tmp_path, capfd):
        (tmp_path / "answer.c").write_text("int answer(void) { return nonsense; }\n")
        with pytest.raises(
            SystemExit, match=r"torch-dalign: compiling .*answer.c failed, the messages of .* are above"
        ):
            recipe.compile_object(job)
        assert "nonsense" in capfd.readouterr().err
        assert not job.target.exists()


class TestOptions:
    def test_gencode(self, recipe):
        assert recipe.gencode(["8.0", "9.0a+PTX"]) == [
            "-gencode=arch=compute_80,code=sm_80",
            "-gencode=arch=compute_90a,code=sm_90a",
            "-gencode=arch=compute_90a,code=compute_90a",
        ]

    def test_gencode_misspelt(self, recipe):
        with pytest.raises(SystemExit, match="TORCH_CUDA_ARCH_LIST: 'Hopper' is not an architecture"):
            recipe.gencode(["Hopper"])

    @pytest.mark.parametrize("text", ["8.0;8.6+PTX", "8.0 8.6+PTX", "8.0, 8.6+PTX"])
    def test_arch_list(self, recipe, monkeypatch, text):
        monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", text)
        assert recipe.cuda_archs({"CUDA_ARCHS": ["9.0"]}) == ["8.0", "8.6+PTX"]

    def test_arch_list_default(self, recipe, monkeypatch):
        monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
        assert recipe.cuda_archs({"CUDA_ARCHS": ["9.0"]}) == ["9.0"]

    def test_werror_is_for_ci(self, recipe, monkeypatch):
        monkeypatch.delenv("DALIGN_WERROR", raising=False)
        assert recipe.werror("-Werror") == []
        monkeypatch.setenv("DALIGN_WERROR", "1")
        assert recipe.werror("-Werror") == ["-Werror"]

    def test_every_kernel_at_every_level(self, recipe, monkeypatch, tmp_path):
        monkeypatch.chdir(ROOT)
        flags = recipe.read_flags()
        toolbox = recipe.Toolbox(["cc"], ["c++"], "", torch, "", None)
        made = {str(job.target.relative_to(tmp_path)) for job in recipe.c_jobs(toolbox, flags, tmp_path)}
        levels = recipe.isa_levels(flags)
        assert made == {"dispatch.o"} | {f"{isa}/{name}.o" for isa in levels for name in flags["KERNELS"]}
        assert {path.stem for path in Path("csrc").glob("*.c")} == set(flags["KERNELS"])

    def test_levels_elsewhere(self, recipe):
        flags = {"ISA_LEVELS": ["generic", "avx2"]}
        assert recipe.isa_levels(flags, "aarch64") == ["generic"]
        assert recipe.isa_levels(flags, "x86_64") == ["generic", "avx2"]


class TestFinished:
    def test_facts(self, recipe):
        facts = _C.build_facts()
        assert facts["version"] == importlib.metadata.version("torch-dalign")
        assert set(facts["isa_levels"]) >= {"generic", _C.isa()}
        assert facts["cuda"] == bool(facts["cuda_archs"])
        assert any(name in facts["compiler"] for name in ("GCC", "Clang", "clang"))
        assert facts["torch"].partition(".")[0].isdigit()

    @pytest.mark.parametrize("isa", ["generic", "avx2", "avx512"])
    def test_isa_of_the_environment(self, isa):
        """DALIGN_ISA asks for a lower level; one that this CPU or build lacks leaves the best."""
        levels = _C.build_facts()["isa_levels"]
        environment = {name: value for name, value in os.environ.items() if name != "DALIGN_ISA"}

        def ask(**variables):
            command = [sys.executable, "-c", "import torch; from torch_dalign import _C; print(_C.isa())"]
            done = subprocess.run(command, cwd=ROOT, env=environment | variables, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        best = ask()
        lower = isa in levels and levels.index(isa) <= levels.index(best)
        assert ask(DALIGN_ISA=isa) == (isa if lower else best)

    @pytest.mark.skipif(not shutil.which("nm"), reason="needs nm")
    def test_exports_its_init_function_alone(self):
        """Two extensions that both carry the library must not take each other's functions."""
        told = subprocess.run(["nm", "-D", "--defined-only", _C.__file__], capture_output=True, text=True, check=True)
        names = {line.split()[-1] for line in told.stdout.splitlines()}
        assert "PyInit__C" in names
        assert not {name for name in names if name.startswith("dalign")}
