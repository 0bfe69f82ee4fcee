"""Pure: when the next call may leave, how long to wait after a failure, when to give up, how many a day."""
