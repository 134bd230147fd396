"""Counting classifiers while some of them come and go."""

import os
import subprocess
import sys

import psutil

from loadtests.ramp import CLASSIFIER, classifiers_among


def test_a_process_that_has_just_ended_is_no_classifier_and_stops_no_count() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", CLASSIFIER], stdin=subprocess.PIPE) as running:
        ended = subprocess.Popen([sys.executable, "-c", "", CLASSIFIER])
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        found = [psutil.Process(), psutil.Process(ended.pid), psutil.Process(running.pid)]
        assert found[1].is_running()
        assert classifiers_among(found) == 1
        ended.wait()
        assert classifiers_among(found) == 1
        running.communicate(b"\n")
