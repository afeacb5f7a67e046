"""Search on scikit-learn's digits and print the test accuracy: `python examples/digits.py [TRIALS]`."""

import sys

import tuner

if __name__ == "__main__":
    trials = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    summary = tuner.run(tuner.RunOptions(dataset="digits", trials=trials))
    print(f"{summary.confirmed.test_accuracy:.2%} on the test set; the checkpoint is {summary.delivered}")
