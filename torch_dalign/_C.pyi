from typing import TypedDict

class BuildFacts(TypedDict):
    version: str
    compiler: str
    torch: str
    isa_levels: tuple[str, ...]
    cuda: bool
    cuda_archs: tuple[str, ...]

def isa() -> str: ...
def build_facts() -> BuildFacts: ...
def softdtw_state_bytes(n: int, m: int, band: float, double: bool) -> int: ...
