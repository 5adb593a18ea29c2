//! `kedge version`

pub fn run() -> anyhow::Result<i32> {
    println!("kedge {} (Kubernetes {})", crate::VERSION, crate::KUBERNETES_VERSION);
    Ok(0)
}
