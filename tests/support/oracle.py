"""The oracle, by the name under which the tests know it: it imports nothing of what it judges."""

from pagewalk.sweep.oracle import predict as predict
