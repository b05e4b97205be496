//! What is spoiled, and how.

use std::time::Duration;

use super::Dice;

/// What happens to a request that a rule meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is answered by the proxy; the server never sees it.
    Status {
        /// The status.
        status: u16,
        /// Headers of the answer.
        headers: Vec<(String, String)>,
    },
    /// It waits before it goes on.
    Delay(Duration),
    /// Its answer's body comes slowly.
    Throttle {
        /// How slowly.
        bytes_per_sec: usize,
    },
    /// The connection ends in the middle of the answer's body.
    Cut {
        /// Bytes that still come.
        at: usize,
    },
    /// The answer's body is shorter than it should be, and its head says that it is whole.
    Truncate {
        /// Bytes that are left.
        at: usize,
    },
    /// A bit of the answer's body is another one.
    Corrupt {
        /// Number of the byte.
        at: usize,
    },
    /// The server gets the request and acts on it; the answer never arrives.
    LoseAnswer,
    /// The connection is reset before the request goes on.
    Reset,
}

/// Which requests meet a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The method; absent are all.
    pub method: Option<String>,
    /// Part of the path with its query; empty are all.
    pub path: String,
    /// Requests that pass before the first that does not.
    pub skip: u32,
    /// How many meet it; absent is no end.
    pub times: Option<u32>,
    /// Of those one in so many, by the proxy's dice; 1 is each.
    pub one_in: usize,
    /// What happens to them.
    pub fault: Fault,
}

impl Rule {
    /// Each request meets the fault.
    pub fn always(fault: Fault) -> Self {
        Self { method: None, path: String::new(), skip: 0, times: None, one_in: 1, fault }
    }

    /// Only requests with this method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = Some(method.to_owned());
        self
    }

    /// Only requests whose path has this in it.
    #[must_use]
    pub fn path(mut self, part: &str) -> Self {
        part.clone_into(&mut self.path);
        self
    }

    /// Not the first ones.
    #[must_use]
    pub const fn after(mut self, requests: u32) -> Self {
        self.skip = requests;
        self
    }

    /// Only so many.
    #[must_use]
    pub const fn times(mut self, requests: u32) -> Self {
        self.times = Some(requests);
        self
    }

    /// Only one in so many.
    #[must_use]
    pub const fn one_in(mut self, requests: usize) -> Self {
        self.one_in = requests;
        self
    }
}

/// The rules of a proxy.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) rules: Vec<Rule>,
    pub(super) dice: Dice,
    /// Requests that met a fault.
    pub(super) met: u64,
}

impl Rules {
    /// What happens to a request: the first rule that meets it counts.
    pub(super) fn fault(&mut self, method: &str, path: &str) -> Option<Fault> {
        for rule in &mut self.rules {
            let is_meant = rule.method.as_deref().is_none_or(|wanted| wanted == method)
                && path.contains(&rule.path);
            if !is_meant || rule.times == Some(0) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if rule.one_in > 1 && !self.dice.once_in(rule.one_in) {
                continue;
            }
            if let Some(times) = &mut rule.times {
                *times -= 1;
            }
            self.met += 1;
            return Some(rule.fault.clone());
        }
        None
    }
}
