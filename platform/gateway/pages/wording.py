"""Every sentence of the pages, in Chinese and English."""

from typing import Literal, get_args

Locale = Literal["zh", "en"]
LOCALES: tuple[Locale, ...] = get_args(Locale)

#: key: Chinese, English; names in braces are filled in
TEXTS: dict[str, tuple[str, str]] = {
    "bank": ("Tessera 银行", "Tessera Bank"),
    "other_language": ("English", "中文"),
    "steps": ("第 {step} 步，共 3 步", "Step {step} of 3"),
    "safe": (
        "您正在银行的页面上，合作方看不到您在此输入的内容。",
        "You are on the bank's own page. The partner does not see what you type here.",
    ),
    "asked_by": ("“{partner}”请您登录并确认授权", "{partner} asks you to sign in and decide"),
    "cancel": ("取消并返回“{partner}”", "Cancel and return to {partner}"),
    "continue": ("继续", "Continue"),
    "decline_title": ("取消并返回“{partner}”？", "Return to {partner}?"),
    "decline_lead": (
        "我们不会向“{partner}”提供您的任何信息，它只会得知您没有授权。",
        "{partner} gets nothing of yours. It only learns that you did not agree.",
    ),
    "decline_go": ("不授权，返回", "Return without agreeing"),
    "decline_not": ("继续登录", "Go on signing in"),
    # password
    "sign_in": ("登录", "Sign in"),
    "login_name": ("登录名", "Login name"),
    "password": ("登录密码", "Password"),
    # second factor
    "code_title": ("输入验证码", "Enter the code"),
    "code_sent": (
        "我们已向您预留的手机发送 6 位验证码，5 分钟内有效。",
        "We have sent a 6-digit code to the phone you registered. It is good for 5 minutes.",
    ),
    "code_not_sent": ("点击下方按钮获取验证码。", "Have a code sent to the phone you registered."),
    "code": ("验证码", "Code"),
    "new_code": ("重新发送验证码", "Send a new code"),
    "send_code": ("发送验证码", "Send a code"),
    "app_title": ("输入动态口令", "Enter the code of your authenticator app"),
    "app_hint": (
        "打开身份验证器应用，输入当前显示的 6 位数字。",
        "Open the app and type the six digits it shows now.",
    ),
    "use_code": ("改用短信验证码", "Use a code sent to my phone"),
    "use_app": ("改用身份验证器应用", "Use my authenticator app"),
    "use_passkey": ("改用通行密钥", "Use my passkey"),
    "no_factor": (
        "目前无法发送验证码。请稍后再试，或联系银行。",
        "Codes cannot be sent at present. Try again later, or contact the bank.",
    ),
    "passkey_title": ("使用通行密钥", "Use your passkey"),
    "passkey_hint": (
        "用这台设备的指纹、面容或锁屏密码确认是您本人。",
        "Confirm that it is you with this device's fingerprint, face or screen lock.",
    ),
    "passkey_go": ("使用通行密钥继续", "Continue with passkey"),
    "passkey_no_script": (
        "通行密钥需要浏览器启用 JavaScript；没有也可以使用验证码。",
        "A passkey needs JavaScript. Without it, use a code instead.",
    ),
    "passkey_failed": (
        "没有完成。请重试，或改用验证码。",
        "That did not work. Try again, or use a code instead.",
    ),
    "passkey_new_title": ("在这台设备上添加通行密钥", "Add a passkey on this device"),
    "passkey_new_hint": (
        "下次在这台设备上登录，用指纹、面容或锁屏密码即可代替验证码。生物特征不会离开您的设备。",
        "Next time on this device, your fingerprint, face or screen lock replaces the code. They stay on the device.",
    ),
    "passkey_new_go": ("添加通行密钥", "Add a passkey"),
    "passkey_new_link": (
        "在这台设备上添加通行密钥，下次无需验证码",
        "Add a passkey on this device and skip the code next time",
    ),
    "not_now": ("暂不添加", "Not now"),
    # consent
    "consent_title": ("是否授权“{partner}”？", "Authorise {partner}?"),
    "consent_lead": (
        "请核对以下内容后再决定。您可以同意，也可以拒绝；拒绝不影响您在银行的其他服务。",
        "Read this before you decide. You may agree or decline; declining changes nothing else at the bank.",
    ),
    "recipient": ("接收方", "Recipient"),
    "contact": ("联系方式：{contact}", "Contact: {contact}"),
    "purpose": ("用途", "Purpose"),
    "data_kinds": ("信息种类", "Data"),
    "allowed": ("允许接收方", "What it may do"),
    "ends_on": ("授权截止", "Ends on"),
    "ends_on_value": ("{date}（当日有效，之后自动失效）", "{date} (the last day; it ends by itself)"),
    "withdraw": ("如何撤回", "How to withdraw"),
    "withdraw_value": (
        "随时可在本行手机应用的“授权管理”中撤回，立即生效。",
        "At any time in the bank's app under Authorisations. It takes effect at once.",
    ),
    "sensitive_title": ("单独同意：敏感个人信息", "Separate consent: sensitive personal information"),
    "sensitive_why": (
        "以下信息一旦泄露，可能影响您的人身、财产安全，因此需要您单独同意：",
        "If leaked, this information could harm you or your property. It therefore needs your separate consent:",
    ),
    "sensitive_box": (
        "我单独同意银行向“{partner}”提供上述敏感个人信息",
        "I separately agree that the bank gives {partner} the sensitive information above",
    ),
    "agree": ("同意授权", "Agree"),
    "decline": ("拒绝", "Decline"),
    # authorization details
    "plan_title": ("分期方案", "Instalment plan"),
    "plan_amount": ("分期金额", "Amount financed"),
    "plan_periods": ("期数", "Periods"),
    "plan_periods_value": ("{periods} 期", "{periods}"),
    "plan_total": ("还款总额", "Total payable"),
    "plan_simple": ("年化利率（单利）", "Annual rate (simple)"),
    "plan_compound": ("年化利率（复利，IRR）", "Annual rate (compound, IRR)"),
    "points_title": ("使用积分", "Spending points"),
    "points_value": (
        "本授权期内最多使用 {points} 积分",
        "Up to {points} points while this authorisation lasts",
    ),
    "tax_title": ("纳税信息", "Tax information"),
    "tax_value": ("{years} 年度：{kinds}", "{kinds} for {years}"),
    "health_title": ("就诊登记信息", "Hospital registrations"),
    "account_title": ("开立账户", "Opening an account"),
    # errors under a field or at the head of a form
    "wrong_password": ("登录名或密码不正确。", "The login name or the password is not right."),
    "wrong_code": ("验证码不正确，请核对后重试。", "The code is not right. Check it and try again."),
    "spent_code": ("此验证码已失效，请重新获取。", "This code is no longer good. Ask for a new one."),
    "locked": ("尝试次数过多，请稍后再试。", "Too many attempts. Try again later."),
    "sends_locked": (
        "验证码发送次数已达上限，请稍后再试。",
        "No more codes can be sent now. Try again later.",
    ),
    "sensitive_needed": (
        "如需授权，请勾选对敏感个人信息的单独同意；也可以拒绝。",
        "To agree, tick the separate consent for sensitive information; or decline.",
    ),
    "another_member": (
        "此请求与另一位会员有关，您不能查看或同意。",
        "This request is about another member. You can neither see it nor agree to it.",
    ),
    "passkey_not_added": ("未能添加通行密钥。", "The passkey was not added."),
    # error pages: title, then sentence
    "error_request_unknown": ("请求无效或已完成", "This request is unknown or finished"),
    "error_request_unknown_text": (
        "此授权请求不存在、已过期或已经处理（也许就在刚才）。请回到合作方的页面查看结果或重新开始。",
        "It does not exist, has expired or was answered, perhaps a moment ago. Go back to the partner.",
    ),
    "error_login_over": ("登录已结束", "This sign-in is over"),
    "error_login_over_text": (
        "登录已超时，或此请求是在另一个浏览器中打开的。请回到合作方的页面重新开始。",
        "It has timed out, or was begun in another browser. Go back to the partner and begin again.",
    ),
    "error_request_refused": ("无法继续", "This cannot go on"),
    "error_request_refused_text": (
        "合作方的请求不正确，我们没有把您的任何信息交给它。请联系该合作方。",
        "The partner's request is not in order. It was given nothing of yours. Please contact the partner.",
    ),
    "error_form_refused": ("表单未被接受", "This form was not accepted"),
    "error_form_refused_text": (
        "表单不是从本行页面提交的，或内容不完整。请返回后重试。",
        "It was not sent from the bank's own page, or is not complete. Go back and try again.",
    ),
    "error_busy": ("系统繁忙", "We are busy"),
    "error_busy_text": (
        "请稍候片刻后重试，您的操作尚未生效。",
        "Nothing has happened yet. Try again in a moment.",
    ),
    "error_failed": ("出现故障", "Something failed"),
    "error_failed_text": (
        "故障发生在我们这边，您的操作未生效。",
        "The failure is on our side. Nothing has happened.",
    ),
    "error_reference": ("参考编号：", "Reference: "),
}

#: what authorization details name: Chinese, English
VALUES: dict[str, tuple[str, str]] = {
    "declared_income": ("申报收入", "declared income"),
    "paid_tax": ("已缴税额", "tax paid"),
    "deductions": ("扣除项目", "deductions"),
    "visit_date": ("就诊日期", "date of visit"),
    "department": ("就诊科室", "department"),
    "registration_fee": ("挂号费", "registration fee"),
    "edu_savings": ("教育储蓄账户", "Education savings account"),
    "elderly_wealth": ("养老理财账户", "Retirement wealth account"),
}


def say(key: str, locale: Locale, **facts: object) -> str:
    """The sentence in the reader's language, with the facts in it."""
    text = TEXTS[key][LOCALES.index(locale)]
    return text.format(**facts) if facts else text


def value(name: str, locale: Locale) -> str:
    """A code as a word; one we have no word for as it is."""
    return VALUES[name][LOCALES.index(locale)] if name in VALUES else name
