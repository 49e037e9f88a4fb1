//! Identifiers that carry their kind: `acct_…`, `key_…`, `ent_…`, `req_…`, and the budgets they name.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

/// Why a text is not an identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an id of the form {prefix}_ and 32 hexadecimal digits")]
pub struct IdError {
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The id with these 128 bits; make new ones with UUID version 7, which sorts by time.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The 128 bits.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = IdError { prefix: $prefix };
                let hex = text.strip_prefix(concat!($prefix, "_")).ok_or(error)?;
                let canonical = hex.len() == 32 && !hex.bytes().any(|b| b.is_ascii_uppercase());
                if !canonical {
                    return Err(error);
                }
                Uuid::try_parse(hex).map(Self).map_err(|_| error)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}

id!(
    /// An account: it owns credits.
    AccountId, "acct"
);
id!(
    /// An API key's name; the secret itself is never an id.
    KeyId, "key"
);
id!(
    /// An immutable ledger row.
    EntryId, "ent"
);
id!(
    /// One request. Its leading 48 bits are the time of admission in milliseconds, so a charge
    /// is found, ordered and partitioned by its id alone.
    RequestId, "req"
);
id!(
    /// One run of one gateway process.
    ReplicaId, "rep"
);

/// Anything that an amount can be taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BudgetId {
    /// An account's credits.
    Account(AccountId),
    /// What a key of this account may still spend of its own limit.
    Key(AccountId, KeyId),
}

impl BudgetId {
    /// The 128 bits under which the budget is stored; accounts and keys never share an id.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        match self {
            Self::Account(id) => id.uuid(),
            Self::Key(_, id) => id.uuid(),
        }
    }

    /// The account that it belongs to: itself, or the key's.
    #[must_use]
    pub const fn account(self) -> AccountId {
        match self {
            Self::Account(account) | Self::Key(account, _) => account,
        }
    }
}

/// The version of a price: the first 128 bits of the SHA-256 of its canonical text, so the same
/// price has the same id on every replica and after every restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PriceId(Uuid);

impl PriceId {
    /// The id with these 128 bits.
    #[must_use]
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The 128 bits.
    #[must_use]
    pub const fn uuid(self) -> Uuid {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip_and_refuse_other_kinds() {
        let id = AccountId::from_uuid(Uuid::from_u128(0x0190_aabb_ccdd));
        let text = id.to_string();
        assert_eq!(
            text,
            "acct_00000000000000000000 0190aabbccdd".replace(' ', "")
        );
        assert_eq!(text.parse(), Ok(id));
        assert!(text.parse::<KeyId>().is_err());
        for bad in [
            "acct_",
            "acct_1",
            "",
            "acct_0190AABBCCDD00000000000000000000",
        ] {
            assert!(bad.parse::<AccountId>().is_err(), "{bad}");
        }
    }
}
