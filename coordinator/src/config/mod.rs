//! Configuration of the coordinator.

mod sections;

pub use sections::{
    AuthConfig, Config, DatabaseConfig, RedisConfig, RetentionConfig, SECTIONS, SecretsConfig,
    ServerConfig,
};
