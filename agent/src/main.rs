//! temp
fn main() -> anyhow::Result<std::process::ExitCode> {
    let path = std::path::PathBuf::from(std::env::args().last().unwrap_or_default());
    let config = vifd::config::Config::load(&path)?;
    tokio::runtime::Runtime::new()?.block_on(vifd::run::run(path, config))
}
