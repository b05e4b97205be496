//! slipway: build Dockerfiles on a farm.
