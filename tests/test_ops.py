"""The convolution and the pooling against `jax.lax`, in value and in gradient, and what they compile to."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from hmcvi.models.layers import conv
from hmcvi.models.ops import DIMENSIONS, Conv, Dense, max_pool

ROWS, CHANNELS, FEATURES = 2, 3, 4

# Sums of at most 2 x 9 x 8 (kernel gradient) or 3 x 5 x 4 products in another order: a few dozen roundings.
ROUNDING = {"float64": 1e-13, "float32": 5e-5}


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def reference(strides, padding):
    """The library's convolution, whose gradients are the library's too."""
    steps = (strides, strides) if isinstance(strides, int) else strides
    return lambda x, kernel: lax.conv_general_dilated(x, kernel, steps, padding, dimension_numbers=DIMENSIONS)


def arrays(size, kernel_size, dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(ROWS, *size, CHANNELS)).astype(dtype)
    return jnp.asarray(x), jnp.asarray(rng.normal(size=(*kernel_size, CHANNELS, FEATURES)).astype(dtype))


def value_and_gradients(function, x, kernel):
    """The output, and the gradients with respect to x and the kernel for a random cotangent of the output."""
    output, pull_back = jax.vjp(function, x, kernel)
    cotangent = np.random.default_rng(1).normal(size=output.shape).astype(output.dtype)
    return output, *pull_back(jnp.asarray(cotangent))


def assert_same(found, wanted, dtype="float64"):
    """Same shape, dtype and, to rounding, value: in units of the largest entry, since sums cancel."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype) == (b.shape, np.dtype(dtype))
        np.testing.assert_allclose(a, b, rtol=0, atol=ROUNDING[dtype] * np.abs(b).max())


SIZES = [(6, 9), (7, 8)]  # every side even and odd
KERNELS = [(1, 1), (2, 2), (3, 3), (3, 5)]
STRIDES = [1, 2, (2, 1)]
PADDINGS = ["SAME", "VALID"]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("kernel_size", KERNELS)
def test_convolution_is_the_library_s(kernel_size, strides, padding):
    # Compiled as one program: one by one, the operations of 48 cases take half a minute to compile.
    @jax.jit
    def found_and_wanted(*images):
        pairs = [(x, jnp.asarray(kernel)) for x in images]
        return [[value_and_gradients(op, *pair) for pair in pairs] for op in ops]

    ops = (Conv(strides, padding), reference(strides, padding))
    kernel = arrays((1, 1), kernel_size)[1]
    found, wanted = found_and_wanted(*(arrays(size, kernel_size)[0] for size in SIZES))
    assert_same(found, wanted)


@pytest.mark.parametrize(
    ("size", "kernel_size", "strides", "padding"),
    [((6, 8), (3, 3), 1, "SAME"), ((7, 9), (2, 2), 2, "SAME"), ((6, 7), (3, 5), (2, 1), "VALID")],
)
def test_convolution_is_the_library_s_in_single_precision(size, kernel_size, strides, padding):
    x, kernel = arrays(size, kernel_size, "float32")
    assert_same(
        value_and_gradients(Conv(strides, padding), x, kernel),
        value_and_gradients(reference(strides, padding), x, kernel),
        "float32",
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("strides", "padding"), [*itertools.product([1, (2, 1)], PADDINGS)])
def test_gradients_are_finite_differences(strides, padding):
    # Second order too: the gradient of the gradient is what a Laplace approximation or a mass matrix would take.
    x, kernel = arrays((5, 6), (3, 2))
    check_grads(Conv(strides, padding), (x, kernel), order=2, modes=["rev"], rtol=1e-6, atol=1e-6)


@pytest.mark.usefixtures("x64")
def test_convolution_is_the_same_compiled():
    x, kernel = arrays((7, 6), (3, 3))
    found = jax.jit(lambda x, kernel: value_and_gradients(Conv(2), x, kernel))(x, kernel)
    assert_same(found, value_and_gradients(reference(2, "SAME"), x, kernel))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0)])
def test_convolution_of_many_kernels_or_images(axes):
    # Chains in lock step map over kernels, draws of a predictive over both.
    pairs = [arrays((6, 5), (3, 3), seed=seed) for seed in range(3)]
    xs, kernels = (jnp.stack(parts) for parts in zip(*pairs, strict=True))
    arguments = (xs if axes[0] == 0 else xs[0], kernels if axes[1] == 0 else kernels[0])

    def over(op):
        return lambda x, kernel: jax.vmap(op, axes)(x, kernel)

    found = value_and_gradients(over(Conv()), *arguments)
    wanted = value_and_gradients(over(reference(1, "SAME")), *arguments)
    assert_same(found, wanted)
    one_by_one = [Conv()(xs[i if axes[0] == 0 else 0], kernels[i if axes[1] == 0 else 0]) for i in range(3)]
    assert_same(found[0], jnp.stack(one_by_one))


def descend(op, x, kernel, steps=3):
    """Gradient descent on the mean square of the output: a gradient inside a scan, as in a scanned epoch."""

    def step(kernel, _):
        value, (in_x, in_kernel) = jax.value_and_grad(loss, (1, 2))(op, x, kernel)
        return kernel - 0.1 * in_kernel, (value, in_x)

    return lax.scan(step, kernel, None, length=steps)


def repeat(op, x, kernel, steps=3):
    """A scan whose carry goes through the convolution, to be differentiated as a whole."""
    return lax.scan(lambda total, factor: (total + loss(op, x * factor, kernel * total), None), 1.0, jnp.arange(steps))[
        0
    ]


def loss(op, x, kernel):
    return (op(x, kernel) ** 2).mean()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("strides", [1, 2])
def test_gradient_inside_a_scan(strides):
    x, kernel = arrays((6, 5), (3, 3))
    kernel /= 10  # the descent stays small, so that rounding does
    found, wanted = (
        jax.jit(functools.partial(descend, op))(x, kernel) for op in (Conv(strides), reference(strides, "SAME"))
    )
    assert_same(found, wanted)


@pytest.mark.usefixtures("x64")
def test_gradient_of_a_scan():
    x, kernel = arrays((6, 5), (3, 3))
    kernel /= 10
    found, wanted = (jax.grad(repeat, (1, 2))(op, x, kernel) for op in (Conv(), reference(1, "SAME")))
    assert_same(found, wanted)


FORWARD = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), ("NHWC", "HWIO", "NHWC"))


def cpu_layouts(jaxpr):
    """Layouts of the convolutions in a jaxpr, in scans and calls too; where a branch is by platform, the CPU's."""
    found = []
    for equation in jaxpr.eqns:
        if equation.primitive.name == "conv_general_dilated":
            found.append(equation.params["dimension_numbers"])
        platforms = equation.params.get("branches_platforms")
        if platforms is None:
            inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns"))
        else:
            (cpu,) = (i for i, names in enumerate(platforms) if names is not None and "cpu" in names)
            inner = [equation.params["branches"][cpu]]
        for part in inner:
            part = getattr(part, "jaxpr", part)  # a closed jaxpr holds its jaxpr
            if hasattr(part, "eqns"):
                found += cpu_layouts(part)
    return found


@pytest.mark.parametrize("strides", [1, 2])
def test_every_convolution_on_a_cpu_has_the_layout_of_a_forward_one(strides):
    # XLA's convolution with respect to the kernel, of another layout, is up to 200 times slower inside a CPU loop.
    x, kernel = arrays((6, 5), (3, 3), "float32")
    ours, library = (
        cpu_layouts(jax.make_jaxpr(functools.partial(descend, op))(x, kernel).jaxpr)
        for op in (Conv(strides), reference(strides, "SAME"))
    )
    assert set(ours) == {FORWARD}
    # the kernel's gradient of strided convolutions is matrix products
    assert len(ours) == (3 if strides == 1 else 2)
    assert len(library) == 3
    assert set(library) != {FORWARD}  # the check sees what it should not find


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="asks what XLA makes for a CPU")
def test_the_compiler_keeps_that_layout():
    x, kernel = arrays((6, 5), (3, 3), "float32")
    text = jax.jit(functools.partial(descend, Conv())).lower(x, kernel).compile().as_text()
    lines = [line for line in text.splitlines() if " convolution(" in line]
    assert len(lines) == 3
    assert all("dim_labels=b01f_01io->b01f" in line for line in lines)


def test_dense_is_the_matrix_product():
    x, kernel = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(Dense()(jnp.asarray(x, "float32"), jnp.asarray(kernel, "float32")), x @ kernel)


# --- pooling


def library_max_pool(x, size):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, size, size, 1), (1, size, size, 1), "VALID")


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("image", [(6, 6), (7, 8), (3, 5)])
def test_pooling_is_the_library_s(image, size):
    # Shuffled whole numbers: no two entries tie, and the gradients are exact in float32.
    count = ROWS * image[0] * image[1] * CHANNELS
    x = jnp.asarray(np.random.default_rng(0).permutation(count).reshape(ROWS, *image, CHANNELS), jnp.float32)
    output, pull_back = jax.vjp(lambda x: max_pool(x, size), x)
    wanted, wanted_pull_back = jax.vjp(lambda x: library_max_pool(x, size), x)
    assert output.shape == (ROWS, image[0] // size, image[1] // size, CHANNELS)
    np.testing.assert_array_equal(output, wanted)
    cotangent = jnp.arange(1.0, output.size + 1).reshape(output.shape)
    np.testing.assert_array_equal(pull_back(cotangent)[0], wanted_pull_back(cotangent)[0])


def test_tied_maxima_share_the_gradient():
    # relu makes ties at 0 in every second window of a real network. Window (0, 0): all tie; (0, 1): two of four.
    x = jnp.asarray([[0.0, 0.0, 5.0, 1.0], [0.0, 0.0, 5.0, 2.0]])[None, :, :, None]
    cotangent = jnp.asarray([8.0, 6.0])[None, None, :, None]
    gradient = jax.vjp(lambda x: max_pool(x, 2), x)[1](cotangent)[0][0, :, :, 0]
    np.testing.assert_array_equal(gradient, [[2.0, 2.0, 3.0, 0.0], [2.0, 2.0, 3.0, 0.0]])


# --- bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Conv(padding="same"), r"convolution got padding='same': give 'SAME' or 'VALID'"),
        (lambda: Conv(0), r"convolution got strides=0: give whole numbers of at least 1"),
        (lambda: Conv((1, 0)), r"convolution got strides=\(1, 0\): give whole numbers of at least 1"),
        (
            lambda: max_pool(jnp.ones((1, 8, 2, 1)), 3),
            r"max_pool got a 8x2 image, smaller than its 3x3 window: pool less",
        ),
        (
            lambda: conv("edges", jnp.ones((1, 8, 2, 1)), 4, padding="VALID"),
            r"conv layer 'edges': a 8x2 image is smaller than its \(3, 3\) kernel",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
