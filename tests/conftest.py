"""What holds for all tests: one thread each, and how many examples Hypothesis tries."""

import os
import signal

# Started in the background, by nohup or a shell's &, tests and what they start would ignore these.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) == signal.SIG_IGN:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )

# Before torch or NumPy are imported: tests run side by side, one process a core.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
os.environ |= dict.fromkeys(THREADS, "1")

from hypothesis import settings  # noqa: E402  (its plug-ins import NumPy)

settings.register_profile("fast", deadline=None, max_examples=40)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("fast")
