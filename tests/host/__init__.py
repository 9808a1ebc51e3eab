"""Tests of the instance host: the real process, real servers, a throw-away control database."""
