//! All SQL of Slipway: one file per aggregate, checked at compile time.
