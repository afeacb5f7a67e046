"""Deliver the winner: confirmation, exports, evaluation and prediction."""
