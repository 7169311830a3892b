"""Tables 1 and 2 of Ito, Kinoshita & Kiya, with what they report beside what is measured here."""
