#!/usr/bin/env python3
"""Cycles of the kernels' inner loops on processors of phones and Jetsons, by llvm-mca's models:

    tools/arm-cost/inner_loops.py [--compiler aarch64-linux-gnu-gcc] [--mca llvm-mca-19]

A loop is what lies between a label and the branch back to it, without another loop in it. Its work is counted in the
multiply instructions that it has; the peak is what the same processor's model gives a loop of nothing but them.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")
# rung, the instructions that do the work, processors
KERNELS = [
    ("neon", "(smull|smlal|smull2|smlal2)", ["cortex-a53", "cortex-a72"]),
    ("dotprod", "sdot", ["neoverse-n1", "neoverse-v1", "neoverse-n2", "cortex-a55"]),
    ("i8mm", "(smmla|sdot)", ["neoverse-v1", "neoverse-n2", "neoverse-v2"]),
]
MACS = dict(smull=8, smull2=8, smlal=8, smlal2=8, sdot=16, smmla=32)


def rung_flags(rung):
    """Those that CMakeLists.txt gives it."""
    with open(f"{ROOT}/CMakeLists.txt", encoding="utf-8") as f:
        return re.search(rf"add_kernel_rung\({rung} [^)]*?FLAGS ([^)]*?)\s+SOURCES", f.read())[1].split()


def assembly(compiler, rung):
    flags = ["-std=gnu11", "-O3", "-S", "-o", "-", *rung_flags(rung), "-DKERNEL_ISA=cost", "-fno-asynchronous-unwind-tables"]
    flags += [f'-DKERNEL_LANES="{ROOT}/kernels/arm/lanes_neon.h"', "-I" + ROOT + "/kernels"]
    source = f"{ROOT}/kernels/arm/gemm_{rung}.c"
    return subprocess.run([compiler, *flags, source], stdout=subprocess.PIPE, check=True, encoding="utf-8").stdout


def loops(text):
    """(function, [instructions]) of every innermost loop."""
    function, labels, lines = None, {}, []
    for line in text.splitlines():
        if m := re.match(r"(\w+):", line):
            if not line.startswith(".L"):
                function = m[1]
        if m := re.match(r"(\.L\w+):", line):
            labels[m[1]] = len(lines)
        elif m := re.match(r"\t([a-z]\S*.*)", line):
            lines.append(m[1])
            if b := re.match(r"\t(?:b\.?\w*|cbn?z\s+\w+,|tbn?z\s+\w+,.*,)\s*(\.L\w+)$", line):
                start = labels.get(b[1])
                if start is not None and not any(start < at for at in labels.values() if at != start):
                    yield function, lines[start:]


def cycles(mca, processor, instructions):
    source = "\n".join(instructions)
    argv = [mca, "-march=aarch64", "-mcpu=" + processor, "-mattr=+dotprod,+i8mm", "-iterations=400"]
    out = subprocess.run(argv, input=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False, encoding="utf-8")
    if out.returncode:
        sys.exit(out.stderr)
    return int(re.search(r"Total Cycles:\s+(\d+)", out.stdout)[1]) / 400


def peak(mca, processor, name):
    """Multiplications a cycle, of a loop of independent instructions."""
    forms = dict(sdot="sdot v{}.4s, v30.16b, v31.4b[0]", smmla="smmla v{}.4s, v30.16b, v31.16b", smlal="smlal v{}.8h, v30.8b, v31.8b")
    form = forms.get(name, forms["smlal"])
    return 24 * MACS[name] / cycles(mca, processor, [form.format(i) for i in range(24)])


def main():
    p = argparse.ArgumentParser(description="Cycles of the inner loops of kernels/arm, by llvm-mca.")
    p.add_argument("--compiler", default="aarch64-linux-gnu-gcc")
    p.add_argument("--mca", default="llvm-mca-19")
    o = p.parse_args()
    for program in (o.compiler, o.mca):
        if not shutil.which(program):
            sys.exit(f"{program}: not found; on Debian: sudo apt-get install gcc-aarch64-linux-gnu llvm-19")
    print("| rung | function | loop | processor | cycles | multiplications a cycle | of the peak |\n|---|---|---|---|---:|---:|---:|")
    for rung, work, processors in KERNELS:
        for function, body in loops(assembly(o.compiler, rung)):
            names = [i.split()[0] for i in body if re.fullmatch(work, i.split()[0])]
            if len(names) < 8:
                continue
            macs = sum(MACS[n] for n in names)
            best = max(set(names), key=names.count)
            for processor in processors:
                c = cycles(o.mca, processor, body)
                rate = macs / c
                print(f"| {rung} | {function} | {len(names)} {best}, {len(body)} in all | {processor} | {c:.1f} | {rate:.1f} | {100 * rate / peak(o.mca, processor, best):.1f} % |")


if __name__ == "__main__":
    main()
