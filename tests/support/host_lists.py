"""Lists of hosts as SLURM writes them, and what `scontrol show hostnames` makes of each."""

from __future__ import annotations

HOST_LISTS = {
    "r1": "r1",
    "n-a": "n-a",
    "a,b": "a b",
    "n[8-11,3]": "n8 n9 n10 n11 n3",
    "n[9-10,08]": "n9 n10 n08",
    "n[1,2-3,010-012]": "n1 n2 n3 n010 n011 n012",
    "n[098-101]": "n098 n099 n100 n101",
    "a[0-1]b[0-1]": "a0b0 a0b1 a1b0 a1b1",
    "rack[1-2]n[01-02],x": "rack1n01 rack1n02 rack2n01 rack2n02 x",
}
