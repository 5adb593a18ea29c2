//! `kedge unit`: the systemd unit that belongs to this executable, for installers.

const UNIT: &str = include_str!("../../systemd/kedge.service");

pub fn run() -> anyhow::Result<i32> {
    print!("{UNIT}");
    Ok(0)
}
