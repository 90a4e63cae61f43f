//! Networks of addresses.

use std::net::IpAddr;

use proptest::prelude::*;
use wire::network::Networks;

fn networks(list: &[&str]) -> Networks {
    Networks::parse_list(list).expect("networks")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_network_contains_the_addresses_with_its_prefix() {
    let list = networks(&["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/33", "172.17.0.1/16"]);
    for inside in ["10.0.0.0", "10.255.255.255", "192.0.2.7", "2001:db8:7fff::1", "172.17.255.0", "::ffff:10.1.1.1"] {
        assert!(list.contain(address(inside)), "{inside}");
    }
    for outside in ["11.0.0.0", "9.255.255.255", "192.0.2.6", "2001:db8:8000::1", "172.18.0.0", "::1", "::10.0.0.1"] {
        assert!(!list.contain(address(outside)), "{outside}");
    }
    assert!(networks(&["0.0.0.0/0"]).contain(address("192.0.2.1")));
    assert!(!networks(&["0.0.0.0/0"]).contain(address("::1")));
    assert!(networks(&["::/0"]).contain(address("::1")));
    assert!(!networks(&[]).contain(address("127.0.0.1")));
}

#[test]
fn other_texts_are_refused() {
    for text in ["", "10.0.0.0", "10.0.0.0/33", "::1/129", "10.0.0/8", "10.0.0.0/-1", "10.0.0.0/8/8", "x/8"] {
        assert!(Networks::parse_list(&[text]).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn an_address_is_in_its_own_network(address: IpAddr, prefix in 0..=32_u32) {
        let address = address.to_canonical();
        let list = Networks::parse_list(&[format!("{address}/{prefix}")]).expect("a network");
        prop_assert!(list.contain(address));
    }
}
