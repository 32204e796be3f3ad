use super::*;

#[test]
fn every_define_is_replaced_and_every_condition_decided() {
    let defines = Defines::new().with("A", 7).flag("B", true).flag("C", false);
    assert!(holds("A", &defines) && holds("A == 7", &defines) && !holds("A != 7", &defines));
    assert!(holds("B", &defines) && holds("!C", &defines) && !holds("C", &defines));
    let mut out = String::new();
    substitute("x ${A} y ${A}${B}.", &defines, &mut out).unwrap();
    assert_eq!(out, "x 7 y 7.\n");
    assert!(substitute("${D}", &defines, &mut out).unwrap_err().contains('D'));
    assert!(substitute("${A", &defines, &mut out).is_err());
}

#[test]
fn an_unknown_kernel_is_named() {
    assert_eq!(compose("no_such", &Defines::new()), Err(ComposeError::NoFile("no_such".to_owned())));
}
