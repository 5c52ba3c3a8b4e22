"""Numbers that call an ambulance, by region."""

REGIONS = {
    "European Union": "112",
    "United Kingdom": "999",
    "United States and Canada": "911",
    "India": "112",
    "Australia": "000",
    "New Zealand": "111",
    "Brazil": "192",
    "Japan": "119",
    "South Africa": "10177",
    "Elsewhere": "112 or the number of your country",
}
