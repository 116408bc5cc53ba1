//! Invitations and enrolment: a token is good for one site, once, for a while.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ring::rand::{SecureRandom as _, SystemRandom};
use sheaf_transport::{
    digest::sha256_hex,
    identity::{Identity, SiteName},
    token::EnrolmentToken,
};

use super::{Admitted, authority::Authority};
use crate::{error::Error, store::Database};

/// Hands out and takes enrolment tokens.
#[derive(Clone)]
pub struct EnrolmentDesk {
    /// Signs.
    pub authority: Arc<Authority>,
    /// Remembers.
    pub database: Database,
    /// Opens the door.
    pub admitted: Arc<Admitted>,
    /// Life of a site's certificate.
    pub certificate_life: Duration,
    /// One change of who is admitted at a time: a renewal must not slip past a revocation.
    pub turn: Arc<Mutex<()>>,
}

/// A site that has just enrolled.
pub struct Enrolled {
    /// Its name, from the invitation.
    pub site: SiteName,
    /// Its certificate, DER.
    pub certificate_der: Vec<u8>,
}

impl EnrolmentDesk {
    /// Invites a site; `now` is Unix milliseconds.
    ///
    /// # Errors
    /// [`crate::error::Class::Conflict`] when the site is enrolled already.
    pub fn invite(
        &self,
        site: SiteName,
        url: String,
        valid: Duration,
        now: i64,
    ) -> Result<(EnrolmentToken, i64), Error> {
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| Error::bug("the system has no random numbers"))?;
        let expires_at = now.saturating_add(i64::try_from(valid.as_millis()).unwrap_or(i64::MAX));
        self.database.invite(&site, &sha256_hex(&secret), expires_at)?;
        let token = EnrolmentToken { secret, ca_fingerprint: self.authority.fingerprint(), site, url };
        Ok((token, expires_at))
    }

    /// Trades a token's secret and a request for a certificate. The same secret with the same request
    /// gets the same answer again (the first one may have been lost on the way); with another request it
    /// is refused.
    pub fn enrol(&self, secret: &[u8], request_der: &[u8], now: i64) -> Result<Enrolled, Error> {
        let refused = || {
            Error::denied(
                "the token is not valid: it was used, replaced or never given out; ask the operator for a new one",
            )
        };
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let secret = sha256_hex(secret);
        let request = sha256_hex(request_der);
        let invitation = self.database.invitation(&secret)?.ok_or_else(refused)?;
        if now > invitation.expires_at {
            return Err(Error::denied("the token has expired; ask the operator for a new one"));
        }
        if let Some((answered, certificate_der)) = invitation.answered {
            let serial = Authority::read(&certificate_der.clone().into())?.serial;
            return if answered == request && self.admitted.holds(&serial) {
                Ok(Enrolled { site: invitation.site, certificate_der })
            } else {
                Err(refused())
            };
        }
        let identity = Identity::Site(invitation.site.clone());
        let der = self.authority.sign_request(request_der, &identity, self.certificate_life)?;
        let certificate = Authority::read(&der)?;
        if !self.database.enrol(&secret, &request, &der, &certificate, now)? {
            return Err(refused());
        }
        self.admitted.insert(certificate.serial);
        Ok(Enrolled { site: invitation.site, certificate_der: der.to_vec() })
    }

    /// A new certificate for a site whose present one has just been verified.
    pub fn renew(&self, site: SiteName, request_der: &[u8]) -> Result<Vec<u8>, Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !self
            .database
            .sites()?
            .iter()
            .any(|known| known.name == site.as_str() && known.status == "enrolled")
        {
            return Err(Error::denied(format!("site `{site}` is not enrolled any more")));
        }
        let der = self.authority.sign_request(request_der, &Identity::Site(site), self.certificate_life)?;
        let certificate = Authority::read(&der)?;
        self.database.admit(&certificate)?;
        self.admitted.insert(certificate.serial);
        Ok(der.to_vec())
    }

    /// Revokes a site from the next call on.
    pub fn revoke(&self, site: &SiteName, now: i64) -> Result<(), Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let serials = self.database.revoke(site, now)?;
        self.admitted.remove(&serials);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use sheaf_transport::keys::SecretKey;

    use super::*;

    fn desk(folder: &std::path::Path) -> EnrolmentDesk {
        EnrolmentDesk {
            authority: Arc::new(Authority::create(&folder.join("ca")).unwrap()),
            database: Database::open(&folder.join("db")).unwrap(),
            admitted: Arc::default(),
            certificate_life: Duration::from_secs(60),
            turn: Arc::default(),
        }
    }

    #[test]
    fn a_token_is_good_once_for_a_while_and_for_nothing_after_revocation() {
        let folder = tempfile::tempdir().unwrap();
        let desk = desk(folder.path());
        let site: SiteName = "a".parse().unwrap();
        let hour = Duration::from_secs(3600);
        let invite = |now| desk.invite(site.clone(), "https://h:1".into(), hour, now);
        let request = SecretKey::generate().unwrap().request().unwrap();
        let other = SecretKey::generate().unwrap().request().unwrap();

        let (stale, _) = invite(0).unwrap();
        let (token, expires_at) = invite(0).unwrap();
        assert!(desk.enrol(&stale.secret, &request, 1).is_err(), "a newer invitation replaces it");
        assert!(desk.enrol(&token.secret, &request, expires_at + 1).is_err(), "expired");
        assert!(desk.enrol(&token.secret, b"no request", 1).is_err());
        assert!(desk.enrol(&[0; 32], &request, 1).is_err());

        let first = desk.enrol(&token.secret, &request, 1).unwrap();
        let again = desk.enrol(&token.secret, &request, 2).unwrap();
        assert_eq!(first.certificate_der, again.certificate_der, "a lost answer is given again");
        assert!(desk.enrol(&token.secret, &other, 2).is_err(), "but to nobody else");
        assert!(invite(3).is_err(), "enrolled sites are not invited");

        let serial = Authority::read(&first.certificate_der.into()).unwrap().serial;
        assert!(desk.admitted.holds(&serial));
        desk.revoke(&site, 4).unwrap();
        assert!(!desk.admitted.holds(&serial));
        assert!(desk.database.admitted_serials().unwrap().is_empty());
        assert!(desk.enrol(&token.secret, &request, 5).is_err());
        assert!(invite(6).is_ok(), "a revoked site may come back");
    }
}
