"""The threads of linear algebra while something is fitted or predicted."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from hmcvi.inference import MAP, SVI, fit, predict
from hmcvi.inference.progress import Progress
from hmcvi.inference.threads import one_blas_thread
from hmcvi.models import gp

X = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
Y = np.sin(3 * X[:, 0])


@pytest.fixture
def three_threads():
    """Linear algebra takes three threads."""
    jnp.linalg.cholesky(jnp.eye(2)).block_until_ready()
    with ThreadpoolController().limit(limits=3, user_api="blas"):
        yield


def threads():
    """Return the numbers of threads of all libraries of linear algebra."""
    return {library["num_threads"] for library in ThreadpoolController().info() if library["user_api"] == "blas"}


class Counting(Progress):
    """Writes down how many threads there are while a fit runs."""

    def __init__(self):
        super().__init__("threads", None)
        self.seen = set()

    def update(self, done, total, unit, detail):
        self.seen |= threads()


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("method", [MAP(num_steps=20), SVI(num_steps=20, num_draws=2)], ids=["map", "svi"])
def test_a_fit_takes_one_thread_and_gives_the_others_back(method):
    counting = Counting()
    result = fit(jax.random.key(0), gp, X, Y, method, progress=counting)
    assert counting.seen == {1}
    assert threads() == {3}
    predict(result, X)
    assert threads() == {3}


@pytest.mark.usefixtures("three_threads")
def test_an_error_gives_them_back():
    @one_blas_thread()
    def failing():
        seen.append(threads())
        raise ZeroDivisionError

    seen = []
    with pytest.raises(ZeroDivisionError):
        failing()
    assert seen == [{1}]
    assert threads() == {3}


@pytest.mark.usefixtures("three_threads")
def test_threads_of_python_that_overlap_leave_what_the_first_one_found():
    """One enters, another enters, the first leaves, the second leaves."""
    entered, left, seen = threading.Event(), threading.Event(), []

    def second():
        with one_blas_thread():
            entered.set()
            left.wait(60)
            seen.append(threads())

    other = threading.Thread(target=second)
    with one_blas_thread():
        other.start()
        assert entered.wait(60)
    left.set()
    other.join(60)
    assert seen == [{3}]  # the first one took its limit along
    assert threads() == {3}
    with one_blas_thread():
        with one_blas_thread():
            assert threads() == {1}
        assert threads() == {1}
    assert threads() == {3}


@pytest.mark.usefixtures("three_threads")
def test_predictions_take_one_thread():
    result = fit(jax.random.key(0), gp, X, Y, MAP(num_steps=20), progress=False)
    seen = set()

    def watching(x, y=None, *, x_new=None, num_rows=None):
        seen.update(threads())
        return gp(x, y, x_new=x_new, num_rows=num_rows)

    object.__setattr__(result, "model", watching)
    predict(result, X)
    assert 1 in seen  # tracing of the density of one draw comes first, and computes nothing
    assert threads() == {3}
