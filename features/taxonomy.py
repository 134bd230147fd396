"""The screens of the demo app, by the product that each is about."""

from collections.abc import Mapping, Sequence

NEUTRAL = ("home", "profile", "settings", "notifications", "help_center", "search")
"""Screens that are about no product."""
PRODUCT_SCREENS: Mapping[str, Sequence[str]] = {
    "credit_card": ("card_home", "card_invoice", "card_limit", "card_virtual", "card_rewards", "card_replace"),
    "checking_account": (
        "account_statement",
        "account_debit_card",
        "account_salary",
        "account_atm_map",
        "account_overdraft",
    ),
    "savings_account": ("savings_home", "savings_goal", "savings_withdraw"),
    "transfers": ("transfer_send", "transfer_receive", "transfer_limits", "transfer_receipt", "transfer_contacts"),
    "bill_payments": ("bills_scan", "bills_scheduled", "bills_history", "phone_topup"),
    "loans": ("loan_simulator", "loan_contract", "loan_installments"),
    "investments": ("invest_home", "invest_stocks", "invest_funds", "invest_crypto", "invest_order"),
    "insurance": ("insurance_home", "insurance_policy", "insurance_claim"),
    "security": ("security_center", "login_reset", "identity_check", "device_list"),
}
SCREENS: Mapping[str, str | None] = {
    **dict.fromkeys(NEUTRAL),
    **{screen: product for product, screens in PRODUCT_SCREENS.items() for screen in screens},
}
"""Screen to its product, or to None."""
