"""PSIS-LOO: against leaving rows out in earnest, against ArviZ itself, and where it must not be believed."""

from __future__ import annotations

from targets import conjugate_regression

TARGET = conjugate_regression()
