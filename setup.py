"""Build of torch_dalign._C: C kernels once per ISA level, the C++ binding, CUDA kernels where nvcc and torch allow.

setuptools only packs. Objects are compiled here, in parallel, and again only when a source, a header, the command or
torch's version has changed. Environment: CC, CXX, MAX_JOBS, DALIGN_WERROR=1 (warnings are errors), DALIGN_CUDA=0|1
(never | or fail), CUDA_HOME, TORCH_CUDA_ARCH_LIST. What is missing is told in one line, the last one.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, NoReturn

import setuptools
from setuptools import Command, Extension, setup
from setuptools.command.build_ext import build_ext

OLDEST_TORCH = (2, 10)
CXX_FLAGS = ["-std=c++20", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra", "-Icsrc"]
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020A000000000000"  # that of torch 2.10: one build for all later versions

Flags = dict[str, list[str]]


def fail(what: str) -> NoReturn:
    raise SystemExit(f"torch-dalign: {what}")


def read_flags() -> Flags:
    """The lists of csrc/flags.mk, which the Makefile includes as it is."""
    lines = [line.split("=", 1) for line in Path("csrc/flags.mk").read_text().splitlines() if line[:1].isalpha()]
    return {name.strip(): shlex.split(words) for name, words in lines}


def isa_levels(flags: Flags, machine: str = platform.machine()) -> list[str]:
    return flags["ISA_LEVELS"] if machine in ("x86_64", "AMD64") else ["generic"]


# ---------------------------------------------------------------- what a build needs, or one line on how to get it


def find_setuptools() -> None:
    """A fresh environment of Python 3.10 or 3.11 has one that can neither read our pyproject.toml nor make wheels."""
    if int(setuptools.__version__.split(".")[0]) < 77:
        fail(f"setuptools {setuptools.__version__} is too old: pip install 'setuptools>=77' 'pybind11>=2.12'")


def find_compiler(variable: str, language: str, candidates: list[str], package: str) -> list[str]:
    """The command in `variable`, else the first candidate on the PATH."""
    command = shlex.split(os.environ.get(variable, "")) or [next(filter(shutil.which, candidates), "")]
    if not shutil.which(command[0]):
        tried = command[0] or ", ".join(candidates)
        fail(
            f"no {language} compiler (tried {tried}): Debian and Ubuntu: apt install {package}; "
            f"Fedora: dnf install {package.replace('g++', 'gcc-c++')}; another one: set {variable}"
        )
    return command


def find_compilers() -> tuple[list[str], list[str]]:
    c = find_compiler("CC", "C", ["cc", "gcc", "clang"], "gcc")
    return c, find_compiler("CXX", "C++", ["c++", "g++", "clang++"], "g++")


def find_python_headers() -> str:
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").exists():
        fail(f"no Python.h in {include}: Debian and Ubuntu: apt install python3-dev; Fedora: dnf install python3-devel")
    return include


def find_torch() -> ModuleType:
    hint = "pip install 'torch>=2.10', then pip install --no-build-isolation ."
    try:
        import torch
    except Exception as error:  # a broken installation raises OSError, not only ImportError
        fail(f"torch cannot be imported by {sys.executable} ({error}): {hint}")
    if tuple(int(number) for number in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
        fail(f"torch {torch.__version__} is too old: {hint}")
    return torch


def find_pybind11() -> str:
    try:
        import pybind11
    except ImportError:
        fail(f"pybind11 is not installed for {sys.executable}: pip install 'pybind11>=2.12'")
    return str(pybind11.get_include())


def find_nvcc() -> str | None:
    """nvcc of CUDA_HOME when that is set, else the one on the PATH, else the usual place."""
    home = os.environ.get("CUDA_HOME")
    if home:
        return shutil.which("nvcc", path=os.path.join(home, "bin"))
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def wished_nvcc() -> str | None:
    """nvcc as DALIGN_CUDA wants it: 0 never, 1 or fail, unset when there is one."""
    wish = os.environ.get("DALIGN_CUDA", "")
    if wish not in ("", "0", "1"):
        fail(f"DALIGN_CUDA={wish} is not known: 0 (no CUDA), 1 (CUDA or fail), or unset (CUDA where possible)")
    nvcc = find_nvcc() if wish != "0" else None
    if wish == "1" and not nvcc:
        fail("DALIGN_CUDA=1, but no nvcc: install the CUDA toolkit and put nvcc on the PATH or set CUDA_HOME")
    return nvcc


def cuda_compiler(torch: ModuleType) -> str | None:
    """nvcc when CUDA kernels are to be built: torch must have CUDA too, its CPU build offers no stream to launch on."""
    nvcc = wished_nvcc()
    if os.environ.get("DALIGN_CUDA") == "1" and not torch.version.cuda:
        fail(f"DALIGN_CUDA=1, but torch {torch.__version__} is built without CUDA: install a CUDA build of torch")
    return nvcc if torch.version.cuda else None


# ---------------------------------------------------------------- CUDA


def cuda_sources() -> list[str]:
    return [str(path) for path in sorted(Path("cuda").glob("*.cu"))]


def cuda_archs(flags: Flags) -> list[str]:
    """TORCH_CUDA_ARCH_LIST ("8.0;9.0+PTX", also with spaces or commas), else the list of flags.mk."""
    wish = os.environ.get("TORCH_CUDA_ARCH_LIST", "")
    return wish.replace(";", " ").replace(",", " ").split() or flags["CUDA_ARCHS"]


def gencode(archs: list[str]) -> list[str]:
    """nvcc options: machine code for each architecture, and PTX for those that end in +PTX."""
    options = []
    for arch in archs:
        number = arch.removesuffix("+PTX").replace(".", "")
        if not number.rstrip("af").isdigit():
            fail(f"TORCH_CUDA_ARCH_LIST: '{arch}' is not an architecture; write for example '8.0 9.0+PTX'")
        kinds = ["sm", "compute"] if arch.endswith("+PTX") else ["sm"]
        options += [f"-gencode=arch=compute_{number},code={kind}_{number}" for kind in kinds]
    return options


def cudart_folders(nvcc: str) -> list[str]:
    """Where nvcc itself links from; nvcc may be a wrapper script, so its own folder says nothing."""
    told = subprocess.run([nvcc, "-dryrun", "-x", "cu", os.devnull], capture_output=True, text=True).stderr
    line = next((line for line in told.splitlines() if "LIBRARIES=" in line), "")
    folders = [word[2:] for word in shlex.split(line.partition("LIBRARIES=")[2]) if word.startswith("-L")]
    return [folder for folder in folders if Path(folder, "libcudart_static.a").exists()]


# ---------------------------------------------------------------- compiling


class Job(NamedTuple):
    command: list[str]
    source: str
    target: Path


def werror(option: str) -> list[str]:
    """Warnings are errors in CI alone: a user's newer compiler may warn about something new."""
    return [option] if os.environ.get("DALIGN_WERROR") == "1" else []


def run_tool(command: list[str], task: str) -> None:
    """Run a compiler or linker; its messages first, then, when it fails, one line of ours."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    sys.stderr.write(done.stdout)
    if done.returncode:
        fail(f"{task} failed, the messages of {command[0]} are above")


def is_fresh(job: Job, key: str) -> bool:
    """Whether the object was made by this very command (key) after the last change of every file it came from."""
    depfile, stamp = job.target.with_suffix(".d"), job.target.with_suffix(".key")
    if not all(path.exists() for path in (job.target, depfile, stamp)) or stamp.read_text() != key:
        return False
    made = job.target.stat().st_mtime_ns
    inputs = depfile.read_text().replace("\\\n", " ").partition(":")[2].split()
    return all(os.path.exists(path) and os.stat(path).st_mtime_ns <= made for path in inputs)


def compile_object(job: Job, salt: str = "") -> str:
    """Compile unless fresh; gives the object's path. salt: what the object depends on besides command and files."""
    command = [*job.command, "-MMD", "-MF", str(job.target.with_suffix(".d")), "-c", job.source]
    key = hashlib.sha256(shlex.join([*command, salt]).encode()).hexdigest()
    if is_fresh(job, key):
        return str(job.target)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    scratch = job.target.with_suffix(f".{os.getpid()}.o")  # renamed when whole: no half object is ever fresh
    print(shlex.join([*command, "-o", str(job.target)]), flush=True)
    run_tool([*command, "-o", str(scratch)], f"compiling {job.source}")
    scratch.replace(job.target)
    job.target.with_suffix(".key").write_text(key)
    return str(job.target)


# ---------------------------------------------------------------- what is compiled


@dataclass
class Toolbox:
    """Everything a build was found to have."""

    cc: list[str]
    cxx: list[str]
    python_include: str
    torch: ModuleType
    pybind11_include: str
    nvcc: str | None  # None: no CUDA kernels


def find_tools() -> Toolbox:
    cc, cxx = find_compilers()
    tools = Toolbox(cc, cxx, find_python_headers(), find_torch(), find_pybind11(), None)
    tools.nvcc = cuda_compiler(tools.torch)
    if not cuda_sources():
        tools.nvcc = None
    return tools


def c_jobs(tools: Toolbox, flags: Flags, folder: Path) -> list[Job]:
    base = [*tools.cc, *flags["C_FLAGS"], *werror("-Werror")]
    jobs = [Job(base, "csrc/simd/dispatch.c", folder / "dispatch.o")]
    for isa in isa_levels(flags):
        command = [*base, *flags[f"ISA_{isa}"], f"-DDALIGN_ISA={isa}"]
        jobs += [Job(command, f"csrc/{name}.c", folder / isa / f"{name}.o") for name in flags["KERNELS"]]
    return jobs


def cxx_jobs(tools: Toolbox, flags: Flags, folder: Path, version: str) -> list[Job]:
    from torch.utils.cpp_extension import include_paths

    facts = {
        "DALIGN_VERSION": version,
        "DALIGN_TORCH_VERSION": tools.torch.__version__,
        "DALIGN_ISA_LEVELS": " ".join(isa_levels(flags)),
        "DALIGN_CUDA_ARCHS": " ".join(cuda_archs(flags)) if tools.nvcc else "",
    }
    base = [*tools.cxx, *CXX_FLAGS, *werror("-Werror"), *(["-DDALIGN_CUDA", "-DUSE_CUDA"] if tools.nvcc else [])]
    torch_folders = [f"-isystem{path}" for path in include_paths("cuda" if tools.nvcc else "cpu")]
    python_folders = [f"-isystem{tools.python_include}", f"-isystem{tools.pybind11_include}"]
    texts = [f'-D{name}="{value}"' for name, value in facts.items()]
    ops = [*base, STABLE_ABI, *torch_folders]
    return [
        *(Job(ops, f"csrc/binding/{name}.cpp", folder / "binding" / f"{name}.o") for name in flags["KERNELS"]),
        Job([*base, *texts, *python_folders], "csrc/binding/module.cpp", folder / "module.o"),
    ]


def cuda_jobs(nvcc: str, flags: Flags, folder: Path) -> list[Job]:
    command = [nvcc, *flags["NVCC_FLAGS"], *gencode(cuda_archs(flags)), *werror("--Werror=all-warnings")]
    return [Job(command, source, folder / f"{Path(source).stem}.o") for source in cuda_sources()]


def link_command(tools: Toolbox, objects: list[str], target: Path) -> list[str]:
    """Link with libtorch_cpu (and libtorch_cuda) alone; no rpath, as Python imports torch first and so loads them."""
    from torch.utils.cpp_extension import library_paths

    libraries = [*(f"-L{folder}" for folder in library_paths()), "-ltorch_cpu"]
    if tools.nvcc:
        cudart = [f"-L{folder}" for folder in cudart_folders(tools.nvcc)]
        libraries += ["-ltorch_cuda", *cudart, "-lcudart_static", "-ldl", "-lrt"]
    options = ["-shared", "-pthread", "-Wl,--exclude-libs,ALL"]
    return [*tools.cxx, *options, *objects, *libraries, "-o", str(target)]


class Build(build_ext):
    """Compiles and links torch_dalign._C."""

    def build_extension(self, ext: Extension) -> None:
        tools, flags = find_tools(), read_flags()
        # Not self.build_temp: an editable install gets a new one every time, and nothing would ever be fresh.
        folder = Path("build", f"obj-{sysconfig.get_platform()}-{sys.implementation.cache_tag}")
        jobs = c_jobs(tools, flags, folder) + cxx_jobs(tools, flags, folder, self.distribution.get_version())
        if tools.nvcc:
            jobs += cuda_jobs(tools.nvcc, flags, folder / "cuda")
        with ThreadPoolExecutor(int(os.environ.get("MAX_JOBS") or os.cpu_count() or 1)) as pool:
            objects = list(pool.map(compile_object, jobs, [tools.torch.__version__] * len(jobs)))
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        run_tool(link_command(tools, objects, target), f"linking {target.name}")


class Bare(Command):
    """A command of setup.py without options."""

    user_options: list[tuple[str, str | None, str]] = []  # noqa: RUF012 (setuptools reads it from the class)

    def initialize_options(self) -> None: ...

    def finalize_options(self) -> None: ...


class Doctor(Bare):
    description = "say in one line what is missing on this machine, before torch is downloaded"

    def run(self) -> None:
        find_compilers()
        find_python_headers()
        wished_nvcc()


class CudaCompile(Bare):
    description = "compile cuda/*.cu without linking them, where nvcc exists"

    def run(self) -> None:
        nvcc, flags = find_nvcc(), read_flags()
        if not nvcc or not cuda_sources():
            print("cuda-compile: nothing checked:", "no cuda/*.cu" if nvcc else "no nvcc (comes with the CUDA toolkit)")
            return
        objects = [compile_object(job) for job in cuda_jobs(nvcc, flags, Path("build", "cuda-compile"))]
        print(f"cuda-compile: {len(objects)} files compile for {' '.join(cuda_archs(flags))}")


if __name__ == "__main__":
    find_setuptools()
    setup(
        ext_modules=[Extension("torch_dalign._C", sources=[], language="c++")],
        cmdclass={"build_ext": Build, "doctor": Doctor, "cuda_compile": CudaCompile},
    )
