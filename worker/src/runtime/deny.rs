//! What a RUN must not reach, as the operator writes it: `10.0.0.0/8`, `192.0.2.7`, `fd00::/8`,
//! `192.0.2.7:5432`, `[fd00::5]:6379`.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// A network, or one port of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deny {
    address: IpAddr,
    bits: u8,
    port: Option<u16>,
}

/// An entry that means nothing.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no network: write 10.0.0.0/8, 192.0.2.7, fd00::/8, 192.0.2.7:5432 or [fd00::5]:6379"
)]
pub struct DenyError(String);

impl Deny {
    /// One port of an address.
    pub(super) fn port(address: IpAddr, port: u16) -> Self {
        Self { port: Some(port), ..Self::host(address) }
    }

    /// A whole host.
    pub(super) fn host(address: IpAddr) -> Self {
        Self { address, bits: if address.is_ipv4() { 32 } else { 128 }, port: None }
    }

    /// The same place as a NAT64 of the host's network would let IPv6 reach it: the well-known prefix
    /// of RFC 6052.
    pub(super) fn through_nat64(&self) -> Option<Self> {
        let IpAddr::V4(address) = self.address else { return None };
        let prefix = u128::from(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0));
        let address = Ipv6Addr::from(prefix | u128::from(u32::from(address)));
        Some(Self { address: address.into(), bits: 96 + self.bits, ..*self })
    }

    /// The rules of nftables that drop what goes there.
    pub(super) fn rules(&self) -> String {
        let family = if self.address.is_ipv4() { "ip" } else { "ip6" };
        let to = format!("{family} daddr {}/{}", self.address, self.bits);
        match self.port {
            None => format!("    {to} drop\n"),
            Some(port) => format!("    {to} meta l4proto {{ tcp, udp }} th dport {port} drop\n"),
        }
    }
}

impl FromStr for Deny {
    type Err = DenyError;

    fn from_str(text: &str) -> Result<Self, DenyError> {
        let bad = || DenyError(text.to_owned());
        if let Ok(socket) = text.parse::<std::net::SocketAddr>() {
            return Ok(Self::port(socket.ip(), socket.port()));
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| bad())?)),
            None => (text, None),
        };
        let all = Self::host(address.parse().map_err(|_| bad())?);
        match bits {
            Some(bits) if bits > all.bits => Err(bad()),
            Some(bits) => Ok(Self { bits, ..all }),
            None => Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_become_rules_and_nonsense_an_error() {
        let check = |text: &str, expected: &str| {
            assert_eq!(text.parse::<Deny>().unwrap().rules(), format!("    {expected}\n"));
        };
        check("10.0.0.0/8", "ip daddr 10.0.0.0/8 drop");
        check("192.0.2.7", "ip daddr 192.0.2.7/32 drop");
        check("fd00::/8", "ip6 daddr fd00::/8 drop");
        let ports = "meta l4proto { tcp, udp } th dport";
        check("192.0.2.7:5432", &format!("ip daddr 192.0.2.7/32 {ports} 5432 drop"));
        check("[fd00::5]:6379", &format!("ip6 daddr fd00::5/128 {ports} 6379 drop"));
        let through = |text: &str| text.parse::<Deny>().unwrap().through_nat64();
        let found = through("192.0.2.7:5432").unwrap().rules();
        assert_eq!(found, format!("    ip6 daddr 64:ff9b::c000:207/128 {ports} 5432 drop\n"));
        assert_eq!(through("fd00::/8"), None);
        for text in
            ["", "db.example", "10.0.0.0/33", "10.0.0.0/x", "1.2.3.4 drop; accept", "::/129"]
        {
            let error = text.parse::<Deny>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
