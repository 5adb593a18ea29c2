//! Traffic counters of a network namespace.

use std::path::Path;

/// One interface, the loopback excepted.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    pub name: String,
    pub rx_bytes: u64,
    pub rx_errors: u64,
    pub tx_bytes: u64,
    pub tx_errors: u64,
}

/// From a process's `net/dev`; nothing where it is gone.
pub fn read(file: &Path) -> Vec<Interface> {
    parse(&std::fs::read_to_string(file).unwrap_or_default())
}

fn parse(text: &str) -> Vec<Interface> {
    let one = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let n: Vec<u64> = counters.split_whitespace().map(|c| c.parse().unwrap_or(0)).collect();
        let at = |i: usize| n.get(i).copied();
        Some(Interface {
            name: name.trim().to_owned(),
            rx_bytes: at(0)?,
            rx_errors: at(2)?,
            tx_bytes: at(8)?,
            tx_errors: at(10)?,
        })
    };
    text.lines().filter_map(one).filter(|i| i.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters() {
        let text = "Inter-|   Receive   |  Transmit\n face |bytes packets errs\n    lo:  9 9 9 9 9 9 9 9 9 9 9 9 9 9 9 9\n  \
                    eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let expected = Interface { name: "eth0".into(), rx_bytes: 1, rx_errors: 3, tx_bytes: 9, tx_errors: 11 };
        assert_eq!(parse(text), [expected]);
    }
}
