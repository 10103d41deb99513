//! The configuration file: what is accepted means something on this host and is read back as it is shown.

use std::path::Path;

use vifd::config::Config;

use super::presentable;

pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let path = Path::new("/etc/vifd/vifd.toml");
    let config = match Config::parse(text, path) {
        Ok(config) => config,
        Err(error) => {
            presentable(&error);
            return false;
        }
    };
    let shown = toml::to_string(&config).expect("a configuration can be shown");
    match Config::parse(&shown, path) {
        Ok(read) => assert_eq!(read, config, "{shown}"),
        Err(error) => panic!("what we show is refused: {error}\n{shown}"),
    }
    assert!(Config::diff_needs_restart(&config, &config).is_empty());
    // A user or group that this host does not have is an error, and a readable one.
    if let Err(error) = config.settings() {
        presentable(&error);
    }
    true
}
