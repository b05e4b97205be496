//! Live logs and wake-ups: Redis or in-process, one contract.
