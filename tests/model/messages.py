"""Messages for behaviour tests; none of them is in the training data."""

CLEAR = {
    "credit_card": [
        "why is my credit card bill so high this month",
        "can you waive the annual fee on my card",
        "how many points do I need for a flight",
        "please increase the limit of my credit card",
        "I need a virtual card for an online purchase",
    ],
    "checking_account": [
        "the ATM swallowed my debit card",
        "my salary has not been deposited",
        "I would like to close my current account",
        "how do I download my bank statement for june",
        "what does the overdraft cost per day",
    ],
    "savings_account": [
        "how much interest does my savings pot earn",
        "I want to create a savings goal for our wedding",
        "move 200 from my pot back to my balance",
        "can I set money aside automatically every month",
        "why did my savings earn less in february",
    ],
    "transfers": [
        "I sent a pix to the wrong person",
        "how long does a wire to germany take",
        "my friend says the money I sent never arrived",
        "raise my daily transfer limit",
        "register my phone number as a pix key",
    ],
    "bill_payments": [
        "the barcode of my electricity bill does not scan",
        "how do I cancel the direct debit of the water company",
        "my phone top up did not arrive",
        "I paid the boleto twice",
        "schedule the payment of my property tax for monday",
    ],
    "loans": [
        "I want to pay off my personal loan early",
        "simulate a mortgage of 300000 over 25 years",
        "was my payroll loan approved",
        "can I renegotiate my overdue loan instalments",
        "what rate would I get on a personal loan",
    ],
    "investments": [
        "how do I buy shares of an etf",
        "when are the dividends of my stocks paid",
        "I want to redeem my fund",
        "my bitcoin order was not executed",
        "which tax do I pay on fixed income",
    ],
    "insurance": [
        "I had a car accident, how do I file a claim",
        "cancel my life insurance policy",
        "does my travel cover include lost luggage",
        "how much would home insurance cost me",
        "my phone screen broke, is it covered by the policy",
    ],
    "security": [
        "I forgot my password and cannot log in",
        "somebody hacked my account",
        "my phone was stolen, block the app please",
        "I got a suspicious sms asking for my password",
        "the selfie identity check keeps failing",
    ],
}

OUTSIDE = [
    "what will the weather be like tomorrow",
    "tell me a joke about penguins",
    "how do I cook rice",
    "my netflix does not work",
    "asdkjh qwlekj zxmcn",
    "who won the match last night",
    "are you hiring software engineers",
    "translate good morning to japanese",
]

AMBIGUOUS = ["it was refused", "why is it still pending", "I want to cancel it", "can you check the status"]
