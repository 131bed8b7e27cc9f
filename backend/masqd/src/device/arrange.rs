//! Which devices are started, and which of them reach other hosts.
//!
//! A host has one address on the network between hosts, so one card can have it; and if
//! that is a RoCEv2 card, it takes the packets for UDP port 4791 before the software NIC
//! could. Cards are therefore started first, whatever the order on the command line.

use crate::args::DeviceChoice;
use anyhow::{Context, Result, bail};

/// Why a card was not started.
pub(super) enum Unusable {
    /// It has no GID of this host's address.
    NotOfThisAddress(anyhow::Error),
    /// Whatever else.
    Otherwise(anyhow::Error),
}

impl Unusable {
    fn error(self) -> anyhow::Error {
        match self {
            Self::NotOfThisAddress(error) | Self::Otherwise(error) => error,
        }
    }
}

/// Starts devices.
pub(super) trait Maker {
    type Device;
    /// Names of the host's cards.
    fn cards(&self) -> Result<Vec<String>>;
    /// Whether this host is one of several.
    fn has_other_hosts(&self) -> bool;
    /// Starts a card, and says whether it takes the packets for RoCEv2's UDP port.
    fn card(&mut self, name: &str, other_hosts: bool) -> Result<(Self::Device, bool), Unusable>;
    /// Starts the software NIC.
    fn soft(&mut self, other_hosts: bool) -> Result<Self::Device>;
}

/// Starts what was chosen; the result is in the order of the choices.
pub(super) fn arrange<M: Maker>(choices: &[DeviceChoice], maker: &mut M) -> Result<Vec<M::Device>> {
    for (n, choice) in choices.iter().enumerate() {
        if choices.iter().take(n).any(|earlier| earlier == choice) {
            bail!(
                "--device {choice} is given twice\n  each device can be had once; tenants share it"
            );
        }
    }
    let mut arrangement = Arrangement {
        maker,
        connected: None,
        port_taken_by: None,
    };
    let mut started: Vec<Option<M::Device>> = choices.iter().map(|_| None).collect();
    for (n, (choice, slot)) in choices.iter().zip(&mut started).enumerate() {
        if let DeviceChoice::Verbs(name) = choice {
            let card = arrangement.card(name, n == 0).map_err(Unusable::error);
            *slot = Some(card.with_context(|| format!("--device {choice}"))?);
        }
    }
    for (choice, slot) in choices.iter().zip(&mut started) {
        if *choice == DeviceChoice::Auto {
            *slot = arrangement.any_card(choices);
        }
    }
    let has_soft = choices.contains(&DeviceChoice::Soft);
    for (choice, slot) in choices.iter().zip(&mut started) {
        let wants_soft = match choice {
            DeviceChoice::Soft => true,
            DeviceChoice::Auto => slot.is_none() && !has_soft,
            DeviceChoice::Verbs(_) => false,
        };
        if wants_soft {
            *slot = Some(arrangement.soft()?);
        }
    }
    Ok(started.into_iter().flatten().collect())
}

struct Arrangement<'a, M> {
    maker: &'a mut M,
    /// The card that has this host's address.
    connected: Option<String>,
    /// The same if it takes RoCEv2's UDP port.
    port_taken_by: Option<String>,
}

impl<M: Maker> Arrangement<'_, M> {
    /// Starts a card. One that is `strict` must have this host's address if there are other
    /// hosts, unless another has it.
    fn card(&mut self, name: &str, strict: bool) -> Result<M::Device, Unusable> {
        let has_others = self.maker.has_other_hosts();
        let mut reason = match &self.connected {
            Some(other) if has_others => Some(format!("{other} has this host's address")),
            _ => None,
        };
        let mut started = self.maker.card(name, has_others && reason.is_none());
        if let Err(Unusable::NotOfThisAddress(error)) = &started
            && !strict
        {
            reason = Some(error.to_string());
            started = self.maker.card(name, false);
        }
        let (device, takes_port) = started?;
        match reason {
            Some(reason) => tracing::warn!(
                card = name,
                reason,
                "its tenants reach endpoints of this host only"
            ),
            None if has_others => {
                self.connected = Some(name.to_owned());
                self.port_taken_by = takes_port.then(|| name.to_owned());
            }
            None => {}
        }
        Ok(device)
    }

    /// The first card that is usable and not chosen by its name, in the order of libibverbs.
    fn any_card(&mut self, choices: &[DeviceChoice]) -> Option<M::Device> {
        let cards = match self.maker.cards() {
            Ok(cards) => cards,
            Err(error) => {
                tracing::info!(error = %format!("{error:#}"), "--device auto: no cards");
                return None;
            }
        };
        let is_named = |card: &&String| {
            let mut choices = choices.iter();
            choices.any(|choice| matches!(choice, DeviceChoice::Verbs(name) if name == *card))
        };
        for card in cards.iter().filter(|card| !is_named(card)) {
            match self.card(card, true) {
                Ok(device) => {
                    tracing::info!(card, "--device auto: this card");
                    return Some(device);
                }
                Err(error) => {
                    let error = error.error();
                    tracing::warn!(card, "--device auto: not this card: {error:#}");
                }
            }
        }
        let cards = cards.len();
        tracing::info!(
            cards,
            "--device auto: no card that is usable, so none but soft"
        );
        None
    }

    fn soft(&mut self) -> Result<M::Device> {
        let has_others = self.maker.has_other_hosts();
        if let Some(card) = self.port_taken_by.as_ref().filter(|_| has_others) {
            tracing::warn!(
                card,
                "the card takes the packets for UDP port 4791: tenants of the soft device reach \
                 endpoints of this host only"
            );
        }
        let reaches = has_others && self.port_taken_by.is_none();
        self.maker.soft(reaches)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    /// A host whose cards are written `NAME`, `NAME@` if they have its address, `NAME!` if
    /// they do not start.
    struct Host {
        cards: Vec<&'static str>,
        others: bool,
        takes_port: bool,
    }

    impl Maker for Host {
        type Device = String;

        fn cards(&self) -> Result<Vec<String>> {
            let bare = |card: &&str| card.trim_end_matches(['@', '!']).to_owned();
            Ok(self.cards.iter().map(bare).collect())
        }

        fn has_other_hosts(&self) -> bool {
            self.others
        }

        fn card(&mut self, name: &str, other_hosts: bool) -> Result<(String, bool), Unusable> {
            let has = |mark: &str| self.cards.contains(&format!("{name}{mark}").as_str());
            match (has("!"), has("@"), has("")) {
                (true, ..) => Err(Unusable::Otherwise(anyhow!("{name} is down"))),
                (_, _, true) if other_hosts => {
                    Err(Unusable::NotOfThisAddress(anyhow!("{name} has no GID")))
                }
                (_, false, false) => Err(Unusable::Otherwise(anyhow!("no card {name}"))),
                _ => Ok((reaching(name, other_hosts), self.takes_port)),
            }
        }

        fn soft(&mut self, other_hosts: bool) -> Result<String> {
            Ok(reaching("soft", other_hosts))
        }
    }

    fn reaching(name: &str, other_hosts: bool) -> String {
        format!("{name}{}", if other_hosts { " far" } else { "" })
    }

    fn on(cards: &[&'static str], others: bool, choices: &[&str]) -> Result<Vec<String>> {
        let choices: Vec<_> = choices.iter().map(|c| c.parse().unwrap()).collect();
        let mut host = Host {
            cards: cards.to_vec(),
            others,
            takes_port: true,
        };
        arrange(&choices, &mut host)
    }

    #[test]
    fn devices_come_in_the_order_of_the_command_line() {
        let both = on(&["rxe0"], false, &["soft", "verbs:rxe0"]);
        assert_eq!(both.unwrap(), ["soft", "rxe0"]);
        let both = on(&["rxe0"], false, &["verbs:rxe0", "soft"]);
        assert_eq!(both.unwrap(), ["rxe0", "soft"]);
    }

    #[test]
    fn the_same_device_twice_is_refused() {
        for twice in ["soft", "auto", "verbs:rxe0"] {
            let error = on(&["rxe0"], false, &[twice, "verbs:siw0", twice]);
            let error = error.unwrap_err().to_string();
            assert!(
                error.contains(&format!("--device {twice} is given twice")),
                "{error}"
            );
        }
    }

    #[test]
    fn auto_is_the_first_usable_card_that_is_not_named_or_else_soft() {
        for (cards, choices, expected) in [
            (&["a", "b"][..], &["auto"][..], &["a"][..]),
            (&["a!", "b"], &["auto"], &["b"]),
            (&["a!"], &["auto"], &["soft"]),
            (&[], &["auto"], &["soft"]),
            (&["a", "b"], &["verbs:a", "auto"], &["a", "b"]),
            (&["a", "b"], &["auto", "verbs:a"], &["b", "a"]),
            (&["a"], &["verbs:a", "auto"], &["a", "soft"]),
            (&["a"], &["auto", "soft"], &["a", "soft"]),
            (&["a"], &["soft", "auto"], &["soft", "a"]),
            // Once: it is there already.
            (&[], &["soft", "auto"], &["soft"]),
            (&[], &["auto", "soft"], &["soft"]),
        ] {
            assert_eq!(
                on(cards, false, choices).unwrap(),
                expected,
                "{cards:?} {choices:?}"
            );
        }
    }

    #[test]
    fn a_card_that_is_named_must_start() {
        for cards in [&["a!"][..], &[]] {
            let error = on(cards, false, &["soft", "verbs:a"]).unwrap_err();
            assert!(
                format!("{error:#}").starts_with("--device verbs:a: "),
                "{error:#}"
            );
        }
    }

    #[test]
    fn between_hosts_one_card_has_the_hosts_address_and_soft_gives_way_to_it() {
        for (cards, choices, expected) in [
            (&["a@"][..], &["verbs:a"][..], &["a far"][..]),
            (&["a@"], &["soft", "verbs:a"], &["soft", "a far"]),
            (&["a@"], &["verbs:a", "soft"], &["a far", "soft"]),
            (&["a@", "b@"], &["verbs:a", "verbs:b"], &["a far", "b"]),
            (&["a@", "b"], &["verbs:a", "verbs:b"], &["a far", "b"]),
            // Beside soft a card need not have it; then soft has its port.
            (&["a"], &["soft", "verbs:a"], &["soft far", "a"]),
            (&["a"], &["auto"], &["soft far"]),
        ] {
            assert_eq!(
                on(cards, true, choices).unwrap(),
                expected,
                "{cards:?} {choices:?}"
            );
        }
        // What tenants are on unless they say otherwise must reach the others.
        let error = on(&["a"], true, &["verbs:a", "soft"]).unwrap_err();
        assert!(format!("{error:#}").contains("has no GID"), "{error:#}");
    }

    #[test]
    fn a_card_that_takes_no_packets_of_roce_leaves_soft_its_port() {
        let mut host = Host {
            cards: vec!["siw0@"],
            others: true,
            takes_port: false,
        };
        let choices = [DeviceChoice::Soft, DeviceChoice::Verbs("siw0".into())];
        assert_eq!(
            arrange(&choices, &mut host).unwrap(),
            ["soft far", "siw0 far"]
        );
    }
}
