"""What browsers are shown: templates, their style, and what turns values into markup."""
