//! Certificates, made anew for each test.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A private authority, and a certificate of it for this machine.
pub(crate) struct Authority {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

pub(crate) fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl Authority {
    pub(crate) fn make(directory: &Path) -> Self {
        let place = |name: &str| directory.join(name).display().to_string();
        let [ca, ca_key] = ["ca.pem", "ca.key"].map(place);
        let [certificate, key] = ["server.pem", "server.key"].map(place);
        let [request, extension] = ["server.csr", "server.ext"].map(place);
        let curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
        let subject = ["-subj", "/CN=test", "-keyout"];
        let all = [&["req", "-x509"][..], &curve, &subject, &[&ca_key, "-out", &ca]].concat();
        openssl(&all);
        let all = [&["req"][..], &curve, &subject, &[&key, "-out", &request]].concat();
        openssl(&all);
        std::fs::write(&extension, "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
            .unwrap();
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-out",
            &certificate,
            "-extfile",
            &extension,
        ]);
        Self { ca: ca.into(), certificate: certificate.into(), key: key.into() }
    }
}
