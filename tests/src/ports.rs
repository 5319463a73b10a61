//! TCP ports on 127.0.0.1 that no one else has.

use std::fs::{self, File};
use std::net::TcpListener;
use std::ops::Range;

use anyhow::{Context, Result, bail};

use crate::folder;

/// Below what systems give to outgoing connections (Linux: from 32768), for such a connection
/// would sit on the port of a server that is down for a moment; and away from known servers.
const RANGE: Range<u16> = 17000..24000;

/// A port that is ours until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked, so that tests of other processes take other ports. The system unlocks it when the
    /// process ends, in whichever way.
    _lock: File,
}

impl Port {
    /// Takes a port that nothing listens on.
    pub fn free() -> Result<Self> {
        let locks = folder::parent()?.join("ports");
        fs::create_dir_all(&locks).with_context(|| format!("cannot make {}", locks.display()))?;
        let count = u128::from(RANGE.end - RANGE.start);
        // Each search begins elsewhere: a port given back may still have old connections.
        let start = uuid::Uuid::new_v4().as_u128() % count;
        for i in 0..count {
            let offset = u16::try_from((start + i) % count).context("the range is of ports")?;
            let number = RANGE.start + offset;
            let path = locks.join(number.to_string());
            let lock = File::create(&path);
            let lock = lock.with_context(|| format!("cannot make {}", path.display()))?;
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        bail!("none of the ports {} to {} is free", RANGE.start, RANGE.end - 1);
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ports_are_distinct_and_free() {
        let ports: Vec<Port> = (0..50).map(|_| Port::free().unwrap()).collect();
        let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
        assert_eq!(numbers.len(), 50);
        for number in numbers {
            TcpListener::bind(("127.0.0.1", number)).unwrap();
        }
    }
}
