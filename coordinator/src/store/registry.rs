//! Sites, invitations and certificates.

use rusqlite::{OptionalExtension as _, params};
use sheaf_privacy::ledger::Head;
use sheaf_transport::identity::{Identity, PeerCertificate, SiteName};

use super::Database;
use crate::error::Error;

/// A site as the coordinator knows it.
#[derive(Debug, Clone)]
pub struct SiteRecord {
    /// Its name.
    pub name: String,
    /// invited, enrolled or revoked.
    pub status: String,
    /// Unix milliseconds.
    pub enrolled_at: Option<i64>,
    /// Unix milliseconds; the last session's start or end.
    pub last_seen: Option<i64>,
    /// End of its newest certificate, Unix seconds.
    pub certificate_not_after: Option<i64>,
    /// Version the agent last reported.
    pub agent_version: String,
    /// Device the agent last reported.
    pub device: String,
}

/// An invitation that matches a token.
#[derive(Debug)]
pub struct Invitation {
    /// The site it was made for.
    pub site: SiteName,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// The answer already given: SHA-256 of the request and the certificate (DER).
    pub answered: Option<(String, Vec<u8>)>,
}

impl Database {
    /// Records an invitation; a revoked site may be invited again, an enrolled one not.
    pub fn invite(&self, site: &SiteName, secret_sha256: &str, expires_at: i64) -> Result<(), Error> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let status: Option<String> = transaction
            .query_row("SELECT status FROM sites WHERE name = ?1", [site.as_str()], |row| row.get(0))
            .optional()?;
        if status.as_deref() == Some("enrolled") {
            return Err(Error::conflict(format!(
                "site `{site}` is enrolled; to enrol it anew, revoke it first: sheaf site revoke {site}"
            )));
        }
        transaction.execute(
            "INSERT INTO sites (name, status) VALUES (?1, 'invited')
             ON CONFLICT (name) DO UPDATE SET status = 'invited'",
            [site.as_str()],
        )?;
        // A new invitation replaces those not yet used.
        transaction
            .execute("DELETE FROM invitations WHERE site = ?1 AND used_at IS NULL", [site.as_str()])?;
        transaction.execute(
            "INSERT INTO invitations (secret_sha256, site, expires_at) VALUES (?1, ?2, ?3)",
            params![secret_sha256, site.as_str(), expires_at],
        )?;
        Ok(transaction.commit()?)
    }

    /// The invitation a token secret belongs to.
    pub fn invitation(&self, secret_sha256: &str) -> Result<Option<Invitation>, Error> {
        let found = self
            .lock()
            .query_row(
                "SELECT site, expires_at, request_sha256, certificate_der FROM invitations WHERE secret_sha256 = ?1",
                [secret_sha256],
                |row| {
                    let answered: (Option<String>, Option<Vec<u8>>) = (row.get(2)?, row.get(3)?);
                    Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, answered.0.zip(answered.1)))
                },
            )
            .optional()?;
        found
            .map(|(site, expires_at, answered)| Ok(Invitation { site: site.parse()?, expires_at, answered }))
            .transpose()
    }

    /// Uses up a token, enrols its site and admits its certificate, all or nothing. `false` when another
    /// caller was first.
    pub fn enrol(
        &self,
        secret_sha256: &str,
        request_sha256: &str,
        certificate_der: &[u8],
        certificate: &PeerCertificate,
        now: i64,
    ) -> Result<bool, Error> {
        let Identity::Site(site) = &certificate.identity else {
            return Err(Error::bug("only sites enrol"));
        };
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let used = transaction.execute(
            "UPDATE invitations SET used_at = ?2, request_sha256 = ?3, certificate_der = ?4
             WHERE secret_sha256 = ?1 AND used_at IS NULL",
            params![secret_sha256, now, request_sha256, certificate_der],
        )?;
        if used == 0 {
            return Ok(false);
        }
        transaction.execute(
            "UPDATE sites SET status = 'enrolled', enrolled_at = ?2 WHERE name = ?1",
            params![site.as_str(), now],
        )?;
        admit(&transaction, certificate)?;
        transaction.commit()?;
        Ok(true)
    }

    /// Admits a certificate that was issued to a known holder (renewal, operator).
    pub fn admit(&self, certificate: &PeerCertificate) -> Result<(), Error> {
        admit(&self.lock(), certificate)
    }

    /// Serial numbers that open a door now.
    pub fn admitted_serials(&self) -> Result<Vec<String>, Error> {
        let connection = self.lock();
        let mut query = connection.prepare("SELECT serial FROM certificates WHERE revoked_at IS NULL")?;
        let rows = query.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Revokes a site and every certificate it holds; gives back their serial numbers.
    pub fn revoke(&self, site: &SiteName, now: i64) -> Result<Vec<String>, Error> {
        let mut connection = self.lock();
        let transaction = connection.transaction()?;
        let changed =
            transaction.execute("UPDATE sites SET status = 'revoked' WHERE name = ?1", [site.as_str()])?;
        if changed == 0 {
            return Err(Error::not_found(format!("there is no site `{site}`; see `sheaf site list`")));
        }
        transaction.execute("DELETE FROM invitations WHERE site = ?1", [site.as_str()])?;
        let serials = {
            let mut update = transaction.prepare(
                "UPDATE certificates SET revoked_at = ?2 WHERE identity = ?1 AND revoked_at IS NULL RETURNING serial",
            )?;
            let rows =
                update.query_map(params![Identity::Site(site.clone()).uri(), now], |row| row.get(0))?;
            rows.collect::<Result<_, _>>()?
        };
        transaction.commit()?;
        Ok(serials)
    }

    /// Notes that a site was here.
    pub fn seen(&self, site: &SiteName, now: i64, agent_version: &str, device: &str) -> Result<(), Error> {
        self.lock().execute(
            "UPDATE sites SET last_seen = ?2, agent_version = ?3, device = ?4 WHERE name = ?1",
            params![site.as_str(), now, agent_version, device],
        )?;
        Ok(())
    }

    /// Remembers the newest entry of a site's ledger; an older one than is known changes nothing.
    pub fn remember_head(&self, site: &SiteName, head: Head) -> Result<(), Error> {
        let counter = i64::try_from(head.counter).map_err(|e| Error::invalid(e.to_string()))?;
        self.lock().execute(
            "INSERT INTO ledger_heads (site, counter, hash) VALUES (?1, ?2, ?3)
             ON CONFLICT (site) DO UPDATE SET counter = excluded.counter, hash = excluded.hash
             WHERE excluded.counter > ledger_heads.counter",
            params![site.as_str(), counter, head.hash.as_bytes()],
        )?;
        Ok(())
    }

    /// The newest entry of a site's ledger that was seen: counter and hash.
    pub fn ledger_head(&self, site: &SiteName) -> Result<Option<(u64, Vec<u8>)>, Error> {
        let found = self
            .lock()
            .query_row("SELECT counter, hash FROM ledger_heads WHERE site = ?1", [site.as_str()], |row| {
                Ok((row.get::<_, i64>(0)?, row.get(1)?))
            })
            .optional()?;
        Ok(found.map(|(counter, hash)| (counter.unsigned_abs(), hash)))
    }

    /// Every site, by name.
    pub fn sites(&self) -> Result<Vec<SiteRecord>, Error> {
        let connection = self.lock();
        let mut query = connection.prepare(
            "SELECT name, status, enrolled_at, last_seen, agent_version, device,
                    (SELECT max(not_after) FROM certificates
                     WHERE identity = 'sheaf://site/' || sites.name AND revoked_at IS NULL)
             FROM sites ORDER BY name",
        )?;
        let rows = query.query_map([], |row| {
            Ok(SiteRecord {
                name: row.get(0)?,
                status: row.get(1)?,
                enrolled_at: row.get(2)?,
                last_seen: row.get(3)?,
                agent_version: row.get(4)?,
                device: row.get(5)?,
                certificate_not_after: row.get(6)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

fn admit(connection: &rusqlite::Connection, certificate: &PeerCertificate) -> Result<(), Error> {
    connection.execute(
        "INSERT OR IGNORE INTO certificates (serial, identity, not_after) VALUES (?1, ?2, ?3)",
        params![certificate.serial, certificate.identity.uri(), certificate.not_after],
    )?;
    Ok(())
}
