//! What is known of images of registries, for a short time.

use common::Platform;
use common::image::ResolvedImage;

use crate::{Result, Store, read, write};

impl Store {
    /// What was found for a reference at most `max_age_secs` ago.
    pub async fn known_image(
        &self,
        reference: &str,
        platform: &Platform,
        max_age_secs: f64,
    ) -> Result<Option<ResolvedImage>> {
        let row = sqlx::query_scalar!(
            r#"select image from image_fact
               where reference = $1 and platform = $2
                 and fetched_at > now() - make_interval(secs => $3)"#,
            reference,
            platform.to_string(),
            max_age_secs,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|image| read("image", image)).transpose()
    }

    /// Remembers an answer of a registry.
    pub async fn remember_image(
        &self,
        reference: &str,
        platform: &Platform,
        image: &ResolvedImage,
    ) -> Result<()> {
        let image = write("image", image)?;
        sqlx::query!(
            r#"insert into image_fact (reference, platform, image) values ($1, $2, $3)
               on conflict (reference, platform)
               do update set image = excluded.image, fetched_at = now()"#,
            reference,
            platform.to_string(),
            image,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
