//! The worker: runs stages, shares what they made, pushes images.
