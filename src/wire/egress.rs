//! Which addresses a confined mirror may connect to: public ones, and those that the server's file allows.
//!
//! Each time a host name is resolved, all its addresses are checked, and only checked addresses are
//! connected to. So a name that changes its address in between gains nothing. The rules and
//! messages are those of GitLab for outbound requests. A proxy resolves the name again; in that
//! case only the addresses that we see are checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use ipnet::IpNet;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::{Address, Error};

/// Longest host name that is looked up, in bytes (GitLab's limit).
const MAX_HOST: usize = 1024;
/// How long [`Egress::check`] waits for a name server.
const LOOKUP: Duration = Duration::from_secs(5);

/// What a confined mirror may reach besides public addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Egress {
    /// Host names, and networks in the form of CIDR.
    allowed: Vec<Allowed>,
    /// Whether everything may be reached, this machine too.
    allows_all: bool,
    /// Whether local paths are refused, even if `allows_all` is set.
    forbids_paths: bool,
}

/// An entry of `allowed_hosts`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Allowed {
    /// A host name in lower case. It is compared with the host of the URL without regard to case.
    Host(String),
    /// A network, or a single address.
    Network(IpNet),
}

impl Allowed {
    /// Reads `mirror.example.org`, `10.1.2.3`, `10.0.0.0/8` or `fd00::/8`. `None` when it is none of them.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(network) = text.parse() {
            return Some(Self::Network(network));
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self::Network(address.into()));
        }
        let is_name = !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
        is_name.then(|| Self::Host(text.to_ascii_lowercase()))
    }
}

impl Egress {
    /// A policy that lets through public addresses and what `allowed` lists.
    #[must_use]
    pub fn new(allowed: Vec<Allowed>) -> Self {
        Self { allowed, ..Self::default() }
    }

    /// A policy that lets everything through, this machine's repositories too.
    #[must_use]
    pub fn everything() -> Self {
        Self { allows_all: true, ..Self::default() }
    }

    /// The same policy without local paths. A push to a path runs the hooks of that repository with our rights.
    #[must_use]
    pub fn without_paths(self) -> Self {
        Self { forbids_paths: true, ..self }
    }

    /// Whether everything may be reached.
    #[must_use]
    pub fn allows_all(&self) -> bool {
        self.allows_all
    }

    /// Resolves a host, and returns its addresses if every one of them may be reached.
    ///
    /// # Errors
    /// [`Error::Blocked`], or [`Error::Resolve`] when it has no address.
    pub fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let blocked = |why: &'static str| Error::Blocked { host: host.chars().take(100).collect(), why };
        if host.len() > MAX_HOST {
            return Err(blocked("its name is too long"));
        }
        let unresolved = |_| Error::Resolve { host: host.to_owned() };
        let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs().map_err(unresolved)?.collect();
        let is_named = self.allowed.contains(&Allowed::Host(host.to_ascii_lowercase()));
        if let Some(why) = self.judge_all(&addresses).filter(|_| !is_named && !self.allows_all) {
            return Err(blocked(why));
        }
        if addresses.is_empty() { Err(Error::Resolve { host: host.to_owned() }) } else { Ok(addresses) }
    }

    /// Whether a mirror may be configured with this address. A name that does not resolve within five seconds is accepted, because it may
    /// resolve later, and its addresses are judged when a run connects.
    ///
    /// # Errors
    /// [`Error::Blocked`]
    pub fn check(&self, address: &Address) -> Result<(), Error> {
        let host_and_port = address.host_and_port();
        if self.allows_all && (host_and_port.is_some() || !self.forbids_paths) {
            return Ok(());
        }
        let Some((host, port)) = host_and_port else {
            return Err(Error::Blocked {
                host: "this machine".into(),
                why: "Only allowed schemes are http, https, ssh, git",
            });
        };
        // A name server that does not answer must not hold up the caller. The thread ends with the lookup. Without a thread, the name
        // counts as one that does not resolve.
        let (policy, name) = (self.clone(), host.to_owned());
        let (say, hear) = std::sync::mpsc::channel();
        let _ = std::thread::Builder::new().spawn(move || say.send(policy.resolve(&name, port)));
        match hear.recv_timeout(LOOKUP) {
            Err(_) | Ok(Err(Error::Resolve { .. }) | Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error),
        }
    }

    /// Why one of the addresses of a name may not be reached; `None` when all may.
    fn judge_all(&self, addresses: &[SocketAddr]) -> Option<&'static str> {
        addresses.iter().find_map(|address| self.judge(address.ip()))
    }

    /// Why an address may not be reached; `None` when it may.
    fn judge(&self, address: IpAddr) -> Option<&'static str> {
        let forms = forms(address);
        let is_allowed = |form: &IpAddr| {
            self.allowed.iter().any(|allowed| matches!(allowed, Allowed::Network(network) if network.contains(form)))
        };
        if forms.iter().any(is_allowed) {
            return None;
        }
        // The embedded IPv4 address gives the clearer reason.
        forms.into_iter().rev().find_map(refusal)
    }
}

/// The address, and the IPv4 address that stands in it: mapped, compatible, translated (RFC 6052) or 6to4 (RFC 3056).
fn forms(address: IpAddr) -> Vec<IpAddr> {
    let mut forms = vec![address];
    if let IpAddr::V6(v6) = address {
        let s = v6.segments();
        let tail = |high: u16, low: u16| {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        };
        match s {
            [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => forms.push(tail(high, low)),
            [0, 0, 0, 0, 0, 0, high, low] if high != 0 => forms.push(tail(high, low)),
            [0x2002, high, low, ..] => forms.push(tail(high, low)),
            _ => {}
        }
    }
    forms
}

fn refusal(address: IpAddr) -> Option<&'static str> {
    const LOCALHOST: &str = "Requests to localhost are not allowed";
    const LOOPBACK: &str = "Requests to loopback addresses are not allowed";
    const LINK_LOCAL: &str = "Requests to the link local network are not allowed";
    const LOCAL: &str = "Requests to the local network are not allowed";
    const SHARED: &str = "Requests to the shared address space are not allowed";
    const RESERVED: &str = "Requests to reserved addresses are not allowed";
    let found = match address {
        _ if address.is_unspecified() => Some(LOCALHOST),
        _ if address.is_loopback() => Some(LOOPBACK),
        _ if address.is_multicast() => Some(RESERVED),
        IpAddr::V4(v4) => of_v4(v4.octets()),
        IpAddr::V6(v6) => of_v6(v6),
    };
    // Only an address of this machine can be bound to, unless net.ipv4.ip_nonlocal_bind is set
    // (ip(7)).
    return found.or_else(|| UdpSocket::bind((address, 0)).is_ok().then_some(LOCALHOST));

    fn of_v4(octets: [u8; 4]) -> Option<&'static str> {
        match octets {
            [0, ..] => Some(LOCALHOST),
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some(LOCAL),
            [169, 254, ..] => Some(LINK_LOCAL),
            [100, 64..=127, ..] => Some(SHARED),
            [192, 0, 0, _] | [192, 88, 99, _] | [198, 18 | 19, ..] | [240..=255, ..] => Some(RESERVED),
            _ => None,
        }
    }

    fn of_v6(v6: Ipv6Addr) -> Option<&'static str> {
        match v6.segments() {
            [first, ..] if first & 0xffc0 == 0xfe80 => Some(LINK_LOCAL),
            [first, ..] if first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0 => Some(LOCAL),
            // These hold an IPv4 address, which is judged by itself: mapped, or with the well-known prefix of RFC 6052.
            [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => None,
            // Addresses of protocols, such as Teredo (RFC 2928).
            [0x2001, 0..=0x1ff, ..] => Some(RESERVED),
            // Global unicast addresses in use, 2000::/3 (RFC 4291, section 2.4).
            [0x2000..=0x3fff, ..] => None,
            _ => Some(RESERVED),
        }
    }
}

/// The resolver for http. ureq connects only to addresses that were checked here. The proxy is not checked: the administrator chose it.
#[derive(Debug)]
pub(super) struct CheckedResolver {
    pub(super) egress: Egress,
    /// The mirror's host.
    pub(super) host: String,
}

impl Resolver for CheckedResolver {
    fn resolve(&self, uri: &Uri, config: &Config, left: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?.trim_start_matches('[').trim_end_matches(']');
        if host != self.host {
            return DefaultResolver::default().resolve(uri, config, left);
        }
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
        let addresses = self.egress.resolve(host, port).map_err(|error| match error {
            Error::Resolve { .. } => ureq::Error::HostNotFound,
            blocked => ureq::Error::Other(Box::new(blocked)),
        })?;
        let mut found = self.empty();
        // ureq takes a limited number of addresses; the others are not needed.
        addresses.into_iter().take_while(|address| found.try_push(*address).is_ok()).for_each(drop);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(egress: &Egress, host: &str) -> String {
        match egress.resolve(host, 443) {
            Ok(_) => "reached".into(),
            Err(Error::Blocked { why, .. }) => why.into(),
            Err(other) => other.to_string(),
        }
    }

    #[test]
    fn every_address_of_a_name_is_judged() {
        let egress = Egress::default();
        let at = |text: &str| SocketAddr::new(text.parse().expect("an address"), 443);
        assert_eq!(egress.judge_all(&[at("203.0.113.1"), at("2001:db8::1")]), None);
        for list in [["203.0.113.1", "10.0.0.1"], ["10.0.0.1", "203.0.113.1"], ["2001:db8::1", "fd00::1"]] {
            assert!(egress.judge_all(&list.map(at)).is_some(), "{list:?}");
        }
    }

    #[test]
    fn private_addresses_in_every_disguise_are_refused() {
        let egress = Egress::default();
        for (host, words) in [
            ("127.0.0.1", "loopback"),
            ("127.9.9.9", "loopback"),
            ("2130706433", "loopback"),
            ("0x7f.1", "loopback"),
            ("localhost", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("0.0.0.0", "localhost"),
            ("0.1.2.3", "localhost"),
            ("::", "localhost"),
            ("10.0.0.1", "local network"),
            ("172.16.0.1", "local network"),
            ("172.31.255.255", "local network"),
            ("192.168.1.1", "local network"),
            ("fd00::1", "local network"),
            ("fec0::1", "local network"),
            ("::ffff:10.0.0.1", "local network"),
            ("64:ff9b::a00:1", "local network"),
            ("2002:a00:1::1", "local network"),
            ("::10.0.0.1", "local network"),
            ("169.254.169.254", "link local"),
            ("fe80::1", "link local"),
            ("100.64.0.1", "shared address space"),
            ("255.255.255.255", "reserved"),
            ("224.0.0.1", "reserved"),
            ("ff02::1", "reserved"),
            ("64:ff9b:1::a00:1", "reserved"),
            ("::ffff:0:10.0.0.1", "reserved"),
            ("2001:0:4136:e378:8000:63bf:3fff:fdd2", "reserved"),
            ("100::1", "reserved"),
            ("192.88.99.1", "reserved"),
            ("2002:c058:6301::1", "reserved"),
            ("4000::1", "reserved"),
        ] {
            assert!(why(&egress, host).contains(words), "{host}: {}", why(&egress, host));
        }
        for host in [
            "192.0.2.1",
            "203.0.113.9",
            "172.32.0.1",
            "2001:db8::1",
            "2600::1",
            "64:ff9b::c000:201",
            "::ffff:192.0.2.1",
            "2002:c000:201::1",
        ] {
            assert_eq!(why(&egress, host), "reached", "{host}");
        }
        assert!(why(&egress, &"x".repeat(1025)).contains("too long"));
    }

    #[test]
    fn what_the_server_allows_is_reached() {
        let allowed =
            |texts: &[&str]| Egress::new(texts.iter().map(|text| Allowed::parse(text).expect("valid")).collect());
        assert_eq!(why(&allowed(&["LocalHost"]), "localhost"), "reached");
        assert_eq!(why(&allowed(&["127.0.0.0/8"]), "127.0.0.1"), "reached");
        assert_eq!(why(&allowed(&["127.0.0.0/8"]), "::ffff:127.0.0.1"), "reached");
        assert_eq!(why(&allowed(&["[::1]"]), "::1"), "reached");
        assert!(why(&allowed(&["10.0.0.0/8"]), "127.0.0.1").contains("loopback"));
        for bad in ["", "a b", "http://h", "*", "10.0.0.0/33"] {
            assert_eq!(Allowed::parse(bad), None, "{bad}");
        }
    }
}
