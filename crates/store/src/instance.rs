//! What there is once for each installation: the pepper, the admin key, the demo key of a first run.

use crate::{
    ApiKeySecret, CreatedKey, NewKey, Store, StoreError,
    secret::{Digest, Pepper},
    sql::sql,
    store::Backend,
};

/// A given admin key of fewer characters could be guessed.
const ADMIN_KEY_CHARS_MIN: usize = 16;

/// Knows an admin key when it sees one.
#[derive(Clone, Debug)]
pub struct AdminKey {
    pepper: Pepper,
    digest: Digest,
}

impl AdminKey {
    /// True for the admin key; compared in constant time.
    #[must_use]
    pub fn matches(&self, secret: &str) -> bool {
        self.pepper.digest(secret).same_as(&self.digest)
    }
}

/// The pepper of this installation, made where there is none; whoever is first decides it.
pub(crate) async fn pepper(backend: &Backend) -> Result<Pepper, StoreError> {
    let mut tx = backend.begin().await?;
    let look = || sql("SELECT pepper FROM instance WHERE id = 1");
    let mut found = tx.link().maybe::<(Vec<u8>,)>(look()).await?;
    if found.is_none() {
        let insert = sql(
            "INSERT INTO instance (id, pepper, created_at) VALUES (1, ?, {now}) \
             ON CONFLICT (id) DO NOTHING",
        )
        .bytes(Pepper::random()?.bytes());
        tx.link().run(insert).await?;
        found = tx.link().maybe(look()).await?;
    }
    tx.commit().await?;
    let (bytes,) = found.ok_or_else(|| StoreError::Corrupt("no pepper".into()))?;
    let bytes = <[u8; 32]>::try_from(bytes)
        .map_err(|_| StoreError::Corrupt("a pepper has 32 bytes".into()))?;
    Ok(Pepper::of(bytes))
}

impl Store {
    /// The key of the admin API: `given` where the operator set one, else the one made by the
    /// first start. The secret is there only on the call that made it.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a given key of less than 16 characters.
    pub async fn ensure_admin_key(
        &self,
        given: Option<&str>,
    ) -> Result<(AdminKey, Option<ApiKeySecret>), StoreError> {
        let pepper = self.pepper()?.clone();
        if let Some(given) = given {
            if given.chars().count() < ADMIN_KEY_CHARS_MIN {
                return Err(StoreError::Invalid {
                    field: "admin_key",
                    problem: "an admin key has at least 16 characters",
                });
            }
            let digest = pepper.digest(given);
            return Ok((AdminKey { pepper, digest }, None));
        }
        let secret = ApiKeySecret::random()?;
        let digest = pepper.digest(secret.expose());
        let mut tx = self.begin().await?;
        let made = sql("UPDATE instance SET admin_key_digest = ? \
             WHERE id = 1 AND admin_key_digest IS NULL")
        .bytes(&digest.0);
        if tx.link().run(made).await? == 1 {
            tx.commit().await?;
            return Ok((AdminKey { pepper, digest }, Some(secret)));
        }
        let look = sql("SELECT admin_key_digest FROM instance WHERE id = 1");
        let (bytes,) = tx.link().one::<(Vec<u8>,)>(look).await?;
        tx.commit().await?;
        let digest = <[u8; 32]>::try_from(bytes)
            .map(Digest)
            .map_err(|_| StoreError::Corrupt("a digest has 32 bytes".into()))?;
        Ok((AdminKey { pepper, digest }, None))
    }

    /// Makes the demo key of a first run; `None` when this database had one before.
    ///
    /// # Errors
    /// As [`Store::create_key`].
    pub async fn create_demo_key(&self, key: NewKey) -> Result<Option<CreatedKey>, StoreError> {
        let mut tx = self.begin().await?;
        let look = sql("SELECT demo_key_id FROM instance WHERE id = 1 {lock}");
        let (there,) = tx.link().one::<(Option<uuid::Uuid>,)>(look).await?;
        if there.is_some() {
            return Ok(None);
        }
        let created = self.create_key_in(&mut tx, key).await?;
        let note =
            sql("UPDATE instance SET demo_key_id = ? WHERE id = 1").uuid(created.key.id.uuid());
        tx.link().run(note).await?;
        tx.commit().await?;
        Ok(Some(created))
    }
}
