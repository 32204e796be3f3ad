#!/usr/bin/env python3
"""Compares two .npy files of float32: .ci/windows/npy_difference.py A.npy B.npy LIMIT

Prints the largest difference of two elements; fails where it is over LIMIT, where shapes differ, and where an element is
no number.
"""

import array
import ast
import sys


def read(path):
    with open(path, "rb") as file:
        magic = file.read(8)
        if magic != b"\x93NUMPY\x01\x00":
            sys.exit(f"{path} is no .npy file of version 1")
        header = ast.literal_eval(file.read(int.from_bytes(file.read(2), "little")).decode())
        if header["descr"] != "<f4" or header["fortran_order"]:
            sys.exit(f"{path} holds {header}, not float32 in C's order")
        return header["shape"], array.array("f", file.read())


def main():
    _, a, b, limit = sys.argv
    (shape, left), (other, right) = read(a), read(b)
    if shape != other or len(left) != len(right) or not left:
        sys.exit(f"{a} has the shape {shape} and {len(left)} elements, {b} {other} and {len(right)}")
    # A difference that is no number is over any limit.
    differences = [d if d == d else float("inf") for d in (abs(x - y) for x, y in zip(left, right))]
    worst = max(differences)
    print(f"{len(left)} elements, largest difference {worst:.2e} of {float(limit):.0e}")
    sys.exit(worst > float(limit))


main()
