//! Test support: private services, ports, directories, builders, faults.
