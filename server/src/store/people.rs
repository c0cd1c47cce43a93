//! Contacts, agents, sessions, integrations.

use domain::{Channel, Contact, ContactId, Login, Presence, Timestamp};
use protocol::{AgentView, Principal};
use sqlx::any::AnyRow;
use uuid::Uuid;

use super::database::Database;
use super::sql::{Columns, Sql, damaged};
use super::{AgentRecord, Integration, StoreError};

/// How often a contact that somebody else adds at the same time is looked for.
const CONTACT_ATTEMPTS: u32 = 4;
/// How many are looked for in one statement.
const CONTACTS_AT_ONCE: usize = 100;

fn hex(hash: [u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(index * 2..index * 2 + 2)?, 16).ok()?;
    }
    Some(hash)
}

fn contact_of(row: &AnyRow) -> Result<Contact, StoreError> {
    Ok(Contact {
        id: Some(row.parsed("id")?),
        name: row.maybe_text("name")?,
        email: row.maybe_text("email")?,
        phone: row.maybe_text("phone")?,
    })
}

/// Addresses are the same whatever their case.
fn email_key(contact: &Contact) -> Option<String> {
    contact.email.as_deref().map(|email| email.trim().to_lowercase())
}

/// Which of those that are known `given` is: by address, else by number.
fn among<'a>(known: &'a [Contact], given: &Contact) -> Option<&'a Contact> {
    let (email, phone) = (email_key(given), given.phone.as_ref());
    let by_email = known.iter().find(|one| email.is_some() && email_key(one) == email);
    by_email.or_else(|| known.iter().find(|one| phone.is_some() && one.phone.as_ref() == phone))
}

const CONTACT_COLUMNS: &str = "SELECT id, name, email, phone FROM contacts WHERE ";

impl Database {
    pub(super) async fn read_contact(&self, id: ContactId) -> Result<Option<Contact>, StoreError> {
        let sql = Sql::new(CONTACT_COLUMNS).and("id = ").arg(id.to_string());
        sql.one_in(&self.read).await?.as_ref().map(contact_of).transpose()
    }

    /// Looks for all of them together; only what is new, or brings something
    /// new, is seen to one by one.
    pub(super) async fn find_or_add_contacts(
        &self,
        given: &[Contact],
        now: Timestamp,
    ) -> Result<Vec<Contact>, StoreError> {
        let emails = given.iter().filter_map(email_key);
        let phones = given.iter().filter_map(|contact| contact.phone.clone());
        let known = self.look_for_contacts(emails, phones).await?;
        let mut found = Vec::with_capacity(given.len());
        for contact in given {
            found.push(match among(&known, contact) {
                Some(there) => self.add_to_contact(there.clone(), contact).await?,
                None => self.find_or_add_contact(contact, now).await?,
            });
        }
        Ok(found)
    }

    /// Those with one of these addresses or numbers.
    async fn look_for_contacts(
        &self,
        emails: impl Iterator<Item = String>,
        phones: impl Iterator<Item = String>,
    ) -> Result<Vec<Contact>, StoreError> {
        let mut found = Vec::new();
        let columns = [("email_key IN ", emails.collect()), ("phone IN ", phones.collect())];
        for (column, mut values) in columns {
            let values: &mut Vec<String> = &mut values;
            values.sort_unstable();
            values.dedup();
            for some in values.chunks(CONTACTS_AT_ONCE) {
                let sql = Sql::new(CONTACT_COLUMNS).and(column).any_of(some.iter().cloned());
                let rows = sql.all_in(&self.read).await?;
                for row in &rows {
                    found.push(contact_of(row)?);
                }
            }
        }
        Ok(found)
    }

    async fn find_or_add_contact(
        &self,
        given: &Contact,
        now: Timestamp,
    ) -> Result<Contact, StoreError> {
        let email_key = email_key(given);
        for _ in 0..CONTACT_ATTEMPTS {
            let id = ContactId(Uuid::now_v7());
            let written = Sql::new(
                "INSERT INTO contacts (id, name, email, email_key, phone, created_at) VALUES ",
            )
            .rows(&[[
                id.to_string().into(),
                given.name.clone().into(),
                given.email.clone().into(),
                email_key.clone().into(),
                given.phone.clone().into(),
                now.as_millis().into(),
            ]])
            .and(" ON CONFLICT DO NOTHING")
            .run_in(&self.write)
            .await?;
            if written == 1 {
                return Ok(Contact { id: Some(id), ..given.clone() });
            }
            // Somebody was quicker.
            let known = self
                .look_for_contacts(email_key.clone().into_iter(), given.phone.clone().into_iter())
                .await?;
            if let Some(known) = among(&known, given) {
                return self.add_to_contact(known.clone(), given).await;
            }
        }
        Err(StoreError::Unavailable("a contact changes too quickly".to_owned()))
    }

    /// Adds what wasn't known; an address or number that is somebody else's stays theirs.
    async fn add_to_contact(&self, known: Contact, given: &Contact) -> Result<Contact, StoreError> {
        let merged = Contact {
            id: known.id,
            name: known.name.clone().or_else(|| given.name.clone()),
            email: known.email.clone().or_else(|| given.email.clone()),
            phone: known.phone.clone().or_else(|| given.phone.clone()),
        };
        let Some(id) = known.id.filter(|_| merged != known) else { return Ok(known) };
        let update = Sql::new("UPDATE contacts SET name = ")
            .arg(merged.name.clone())
            .and(", email = ")
            .arg(merged.email.clone())
            .and(", email_key = ")
            .arg(email_key(&merged))
            .and(", phone = ")
            .arg(merged.phone.clone())
            .and(" WHERE id = ")
            .arg(id.to_string());
        match update.run_in(&self.write).await {
            Ok(_) => Ok(merged),
            Err(StoreError::Unavailable(text)) if is_taken(&text) => Ok(known),
            Err(error) => Err(error),
        }
    }

    fn agent_row(agent: &AgentRecord, now: Timestamp) -> [super::sql::Arg; 10] {
        [
            agent.principal.id.to_string().into(),
            agent.principal.login.as_str().into(),
            agent.principal.name.as_str().into(),
            agent.principal.role.as_str().into(),
            agent.password_hash.as_str().into(),
            agent.disabled.into(),
            Presence::Offline.as_str().into(),
            None::<String>.into(),
            now.as_millis().into(),
            now.as_millis().into(),
        ]
    }

    pub(super) async fn write_agent(
        &self,
        agent: &AgentRecord,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let written = Sql::new(AGENT_COLUMNS)
            .and(" VALUES ")
            .rows(&[Self::agent_row(agent, now)])
            .and(" ON CONFLICT (login) DO NOTHING")
            .run_in(&self.write)
            .await?;
        match written {
            0 => Err(StoreError::Exists(format!("agent {}", agent.principal.login))),
            _ => Ok(()),
        }
    }

    /// One row of `meta` can be written once: of two firsts one loses.
    pub(super) async fn write_first_agent(
        &self,
        agent: &AgentRecord,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write.begin().await?;
        let first = Sql::new("INSERT INTO meta (name, value) VALUES ('first_agent', ")
            .arg(agent.principal.login.as_str())
            .and(") ON CONFLICT (name) DO NOTHING")
            .run(&mut tx)
            .await?;
        let any = Sql::new("SELECT login FROM agents LIMIT 1").one(&mut tx).await?;
        if first == 0 || any.is_some() {
            tx.rollback().await?;
            return Ok(false);
        }
        Sql::new(AGENT_COLUMNS)
            .and(" VALUES ")
            .rows(&[Self::agent_row(agent, now)])
            .run(&mut tx)
            .await?;
        tx.commit().await?;
        Ok(true)
    }

    pub(super) async fn read_agent(
        &self,
        login: &Login,
    ) -> Result<Option<AgentRecord>, StoreError> {
        let row = Sql::new(
            "SELECT id, login, name, role, password_hash, disabled FROM agents WHERE login = ",
        )
        .arg(login.as_str())
        .one_in(&self.read)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some(AgentRecord {
            principal: principal_of(&row)?,
            password_hash: row.text("password_hash")?,
            disabled: row.int("disabled")? != 0,
        }))
    }

    pub(super) async fn read_agents(&self) -> Result<Vec<AgentView>, StoreError> {
        let rows = Sql::new(
            "SELECT id, login, name, role, presence, reason, since FROM agents \
             WHERE disabled = 0 ORDER BY login",
        )
        .all_in(&self.read)
        .await?;
        rows.iter()
            .map(|row| {
                let principal = principal_of(row)?;
                Ok(AgentView {
                    id: principal.id,
                    login: principal.login,
                    name: principal.name,
                    role: principal.role,
                    presence: row.parsed("presence")?,
                    reason: row.maybe_text("reason")?,
                    since: Timestamp::from_millis(row.int("since")?),
                })
            })
            .collect()
    }

    pub(super) async fn write_disabled(&self, login: &Login) -> Result<bool, StoreError> {
        let mut tx = self.write.begin().await?;
        let changed = Sql::new("UPDATE agents SET disabled = 1 WHERE disabled = 0 AND login = ")
            .arg(login.as_str())
            .run(&mut tx)
            .await?;
        Sql::new("DELETE FROM sessions WHERE login = ").arg(login.as_str()).run(&mut tx).await?;
        tx.commit().await?;
        Ok(changed > 0)
    }

    pub(super) async fn write_session(
        &self,
        hash: [u8; 32],
        login: &Login,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        Sql::new("INSERT INTO sessions (hash, login, created_at, expires_at) VALUES ")
            .rows(&[[
                hex(hash).into(),
                login.as_str().into(),
                now.as_millis().into(),
                expires_at.as_millis().into(),
            ]])
            .run_in(&self.write)
            .await?;
        Ok(())
    }

    pub(super) async fn read_session(
        &self,
        hash: [u8; 32],
        now: Timestamp,
    ) -> Result<Option<(Principal, Timestamp)>, StoreError> {
        let row = Sql::new(
            "SELECT a.id, a.login, a.name, a.role, s.expires_at FROM sessions s \
             JOIN agents a ON a.login = s.login WHERE a.disabled = 0 AND s.hash = ",
        )
        .arg(hex(hash))
        .and(" AND s.expires_at > ")
        .arg(now.as_millis())
        .one_in(&self.read)
        .await?;
        let Some(row) = row else { return Ok(None) };
        Ok(Some((principal_of(&row)?, Timestamp::from_millis(row.int("expires_at")?))))
    }

    pub(super) async fn delete_session(&self, hash: [u8; 32]) -> Result<(), StoreError> {
        Sql::new("DELETE FROM sessions WHERE hash = ").arg(hex(hash)).run_in(&self.write).await?;
        Ok(())
    }

    pub(super) async fn write_integration(&self, one: &Integration) -> Result<(), StoreError> {
        let scopes: Vec<_> = one.scopes.iter().map(|scope| scope.as_str()).collect();
        let written = Sql::new(
            "INSERT INTO integrations (id, name, scopes, key_hash, signature_required, \
             created_at, revoked_at) VALUES ",
        )
        .rows(&[[
            one.id.to_string().into(),
            one.name.as_str().into(),
            scopes.join(",").into(),
            hex(one.key_hash).into(),
            one.signature_required.into(),
            one.created_at.as_millis().into(),
            one.revoked_at.map(Timestamp::as_millis).into(),
        ]])
        .and(" ON CONFLICT DO NOTHING")
        .run_in(&self.write)
        .await?;
        match written {
            0 => Err(StoreError::Exists(format!("key {}", one.name))),
            _ => Ok(()),
        }
    }

    pub(super) async fn read_integration(
        &self,
        key_hash: [u8; 32],
    ) -> Result<Option<Integration>, StoreError> {
        let row = Sql::new(INTEGRATION_COLUMNS)
            .and(" WHERE revoked_at IS NULL AND key_hash = ")
            .arg(hex(key_hash))
            .one_in(&self.read)
            .await?;
        row.as_ref().map(integration_of).transpose()
    }

    pub(super) async fn read_integrations(&self) -> Result<Vec<Integration>, StoreError> {
        let rows = Sql::new(INTEGRATION_COLUMNS).and(" ORDER BY name").all_in(&self.read).await?;
        rows.iter().map(integration_of).collect()
    }

    pub(super) async fn write_revoked(
        &self,
        name: &str,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let changed = Sql::new("UPDATE integrations SET revoked_at = ")
            .arg(now.as_millis())
            .and(" WHERE revoked_at IS NULL AND name = ")
            .arg(name)
            .run_in(&self.write)
            .await?;
        Ok(changed > 0)
    }
}

const AGENT_COLUMNS: &str = "INSERT INTO agents (id, login, name, role, password_hash, disabled, \
    presence, reason, since, created_at)";
const INTEGRATION_COLUMNS: &str = "SELECT id, name, scopes, key_hash, signature_required, \
    created_at, revoked_at FROM integrations";

fn is_taken(error: &str) -> bool {
    error.to_lowercase().contains("unique")
}

fn principal_of(row: &AnyRow) -> Result<Principal, StoreError> {
    Ok(Principal {
        id: row.parsed("id")?,
        login: row.parsed("login")?,
        name: row.text("name")?,
        role: row.parsed("role")?,
    })
}

fn integration_of(row: &AnyRow) -> Result<Integration, StoreError> {
    let scopes = row.text("scopes")?;
    let scopes: Vec<Channel> = scopes
        .split(',')
        .filter(|scope| !scope.is_empty())
        .map(|scope| scope.parse().map_err(|_| damaged("scopes")))
        .collect::<Result<_, _>>()?;
    Ok(Integration {
        id: row.parsed("id")?,
        name: row.text("name")?,
        scopes,
        key_hash: unhex(&row.text("key_hash")?).ok_or_else(|| damaged("key_hash"))?,
        signature_required: row.int("signature_required")? != 0,
        created_at: Timestamp::from_millis(row.int("created_at")?),
        revoked_at: row.maybe_int("revoked_at")?.map(Timestamp::from_millis),
    })
}
